"""`hbo.export --to android-bench`: a folder to push to a phone, and a script that times its files there.

The script calls the runtimes' own programs, `benchmark_model` of LiteRT and `executor_runner` of ExecuTorch,
which their releases offer for Android; `hbo.bench infer --from LOG` reads what they print. Nothing here was
run on a phone: none was at hand.
"""

from pathlib import Path

from hbo.deploy.runtimes import Runtime

THREADS = (1, 2, 4)
THERE = "/data/local/tmp/hbo"
LOGGED = "adb logcat -d -s ExecuTorch >> phone.log 2>&1"
PROGRAMS = {"litert": "benchmark_model", "executorch": "executor_runner"}


def commands(runtime: str, file: str, threads: int) -> str:
    """How a phone times a file."""
    if runtime == "litert":
        return (
            f"./benchmark_model --graph={file} --num_threads={threads} --use_xnnpack=true --warmup_runs=20"
            f" --num_runs=200"
        )
    return (
        f"./executor_runner --model_path={file} --method_name=forward --cpu_threads={threads}"
        f" --num_executions=200"
    )


def script(files: dict[str, str]) -> str:
    """The shell script: pushes, times, and leaves a log.

    Args:
        files: name of a file -> its runtime.
    """
    lines = [
        "#!/bin/sh",
        "# Not tested on a phone. First put the programs for the phone's processor beside this file:",
        *[
            f"#   {PROGRAMS[runtime]}, of {runtime}'s releases or built from its sources"
            for runtime in sorted(set(files.values()))
        ],
        *(
            ["# executor_runner prints times only if built with EXECUTORCH_ENABLE_LOGGING=ON."]
            if "executorch" in files.values()
            else []
        ),
        "# Let the phone cool down, turn the screen on; then: python -m hbo.bench infer --from phone.log",
        "set -eu",
        'cd "$(dirname "$0")"',
        f"adb shell mkdir -p {THERE}",
    ]
    for runtime in sorted(set(files.values())):
        lines.append(
            f"adb push {PROGRAMS[runtime]} {THERE}/ && adb shell chmod 755 {THERE}/{PROGRAMS[runtime]}"
        )
    lines += [f"adb push {file} {THERE}/" for file in files]
    lines.append(": > phone.log")
    for threads in THREADS:
        for file, runtime in files.items():
            lines.append(f'echo "# hbo: file={file} runtime={runtime} threads={threads}" >> phone.log')
            run = f'adb shell "cd {THERE} && {commands(runtime, file, threads)}" >> phone.log 2>&1 || true'
            # On Android ExecuTorch prints into the phone's own log.
            lines += ["adb logcat -c", run, LOGGED] if runtime == "executorch" else [run]
    return "\n".join(lines) + "\n"


def made_here(runtimes: list[Runtime]) -> list[Runtime]:
    """The runtimes that a phone's programs can time."""
    return [runtime for runtime in runtimes if runtime.name in PROGRAMS]


def write(folder: Path, files: dict[str, str]) -> None:
    """The script, beside the files."""
    path = folder / "run.sh"
    path.write_text(script(files))
    path.chmod(0o755)
