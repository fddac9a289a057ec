# Not built yet: a starting point. docker build -t hbo . && docker run --rm --gpus all -v "$PWD/runs:/hbo/runs" hbo python -m hbo.fit --k 2
FROM python:3.11-slim
RUN apt-get update && apt-get install -y --no-install-recommends git && rm -rf /var/lib/apt/lists/*
WORKDIR /hbo
COPY . .
RUN pip install --no-cache-dir -c constraints.txt -e '.[zoo,slurm,export]'
# Rows name the commit of a checkout that belongs to someone else.
RUN git config --system --add safe.directory /hbo
CMD ["python", "-m", "hbo"]
