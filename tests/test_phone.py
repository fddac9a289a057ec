"""What a phone needs to time a network, and the output of its programs."""

import os
import subprocess

import pytest
from conftest import call

from hbo.bench import phone
from hbo.errors import UserError
from hbo.exporting import android


def test_the_output_of_a_phone_s_programs_is_read(tmp_path):
    """Lines as benchmark_model and executor_runner print them, according to their sources, among the script's
    own.
    """
    log = tmp_path / "phone.log"
    log.write_text(
        "# hbo: file=net.tflite runtime=litert threads=2\n"
        "INFO: Inference timings in us: Init: 5685, First inference: 18535, Warmup (avg): 14462.3, Inference"
        " (avg): 14575.2\n# hbo: file=net.pte runtime=executorch threads=1\n"
        "I 00:00:00.5 executorch:executor_runner.cpp:900] Model executed successfully 200 time(s) in"
        " 900.000000 ms.\n"
    )
    assert phone.read(log) == [
        {"file": "net.tflite", "runtime": "litert", "threads": 2, "latency_ms": pytest.approx(14.5752)},
        {"file": "net.pte", "runtime": "executorch", "threads": 1, "latency_ms": pytest.approx(4.5)},
    ]
    assert "14.58" in call("hbo.bench", "infer", "--from", log)[0]
    log.write_text("nothing\n")
    with pytest.raises(UserError, match="holds no timing"):
        phone.read(log)


def test_a_program_that_failed_on_a_phone_is_a_row_without_a_time(tmp_path):
    """So is one whose output is not a number, such as that of a program killed while it printed."""
    log = tmp_path / "phone.log"
    begin = "# hbo: file=net.{} runtime={} threads={}\n".format
    lines = [
        begin("tflite", "litert", 1),
        "ERROR: Failed to load model\n",
        begin("tflite", "litert", 2) + "Inference timings in us: Init: 1, Inference (avg): 2e+03\n",
        begin("tflite", "litert", 4) + "Inference timings in us: Init: 1, Inference (avg): .\n",
        begin("pte", "executorch", 1) + "Model executed successfully 0 time(s) in 0.0 ms.\n",
        begin("pte", "executorch", 2) + "Model executed successfully in 3.5 ms.\n",
        begin("pte", "executorch", 4),
    ]
    log.write_text("".join(lines))
    found = phone.read(log)
    assert [row["threads"] for row in found] == [1, 2, 4, 1, 2, 4]
    assert [row["latency_ms"] for row in found] == [None, 2.0, None, None, 3.5, None]
    assert [line.split()[-1] for line in phone.table(found).splitlines()[1:]] == [
        "failed", "2.00", "failed", "failed", "3.50", "failed",
    ]  # fmt: skip
    log.write_text(begin("pte", "executorch", 1))
    with pytest.raises(UserError, match="holds no timing"):
        phone.read(log)


def test_the_script_for_a_phone_times_every_file_and_says_so():
    text = android.script({"net.tflite": "litert", "net.pte": "executorch"})
    begun = [phone.BEGIN.search(line.split('"')[1]) for line in text.splitlines() if "# hbo:" in line]
    assert [found.group(1, 3) for found in begun if found] == [
        (file, str(n)) for n in android.THREADS for file in ("net.tflite", "net.pte")
    ]
    assert "Not tested on a phone" in text
    assert "--method_name=forward" in text  # the file's metadata are a method, too
    lines = text.splitlines()
    runs = [i for i, line in enumerate(lines) if "./executor_runner" in line]
    # On Android its log, and the times in it, go to logcat alone: runtime/platform/default/android.cpp.
    assert {(lines[i - 1], lines[i + 1]) for i in runs} == {
        ("adb logcat -c", "adb logcat -d -s ExecuTorch >> phone.log 2>&1")
    }


def test_the_script_for_a_phone_runs_and_its_log_is_read(tmp_path, monkeypatch):
    """With an adb that answers as the programs do: benchmark_model on the terminal, executor_runner in logcat."""
    folder = tmp_path / "android-bench"
    folder.mkdir()
    android.write(folder, {"net.tflite": "litert", "net.pte": "executorch"})
    adb = tmp_path / "bin" / "adb"
    adb.parent.mkdir()
    adb.write_text(
        "#!/bin/sh\n"
        'case "$*" in\n'
        '*./benchmark_model*) echo "INFO: Inference timings in us: Init: 5, Inference (avg): 2500.5";;\n'
        '"logcat -d"*) echo "11-28 I ExecuTorch: Model executed successfully 200 time(s) in 900.0 ms.";;\n'
        "esac\n"
    )
    adb.chmod(0o755)
    monkeypatch.setenv("PATH", f"{adb.parent}:{os.environ['PATH']}")
    subprocess.run([folder / "run.sh"], cwd=tmp_path, check=True)  # from anywhere
    assert [(row["threads"], row["file"], row["latency_ms"]) for row in phone.read(folder / "phone.log")] == [
        (n, file, ms) for n in android.THREADS for file, ms in (("net.tflite", 2.5005), ("net.pte", 4.5))
    ]
