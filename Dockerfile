# Two images. The one to serve with is the last stage, so it is what is built unless another is asked for.
#
# Serve an exported model, without torch:  viralbert export --model runs/sample/viralbert -o model && docker compose up --build
# The model is mounted, nothing is fetched at the start. By itself it wants a key: docker run -e VIRALBERT_API_KEY=<a secret> ... viralbert
#
# Train:  docker build --target train -t viralbert-train .
#         docker run --gpus all --user "$(id -u)" -v ./models:/work -t viralbert-train viralbert train --dataset emotions --output emotions
# torch as PyPI has it for Linux brings CUDA; TRAIN_BASE names another base, such as one that holds CUDA and torch already.
ARG TRAIN_BASE=python:3.11.14-slim-trixie

FROM ${TRAIN_BASE} AS train
ARG TORCH=torch==2.13.0
ARG PIP_ARGS=
# Where the base's own Python is the system's, pip asks to be told that it may write there.
ENV PIP_BREAK_SYSTEM_PACKAGES=1 PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1 ORT_DISABLE_TELEMETRY=1
WORKDIR /app
COPY requirements.lock pyproject.toml README.md ./
RUN python -m pip install --no-deps --require-hashes --requirement requirements.lock
# A torch of the base stays if it is of the version that the course is tested with.
RUN python -c "import sys, torch; sys.exit(torch.__version__.split('+')[0] != '${TORCH#torch==}')" \
    || python -m pip install ${PIP_ARGS} "${TORCH}"
COPY viralbert_utils viralbert_utils
COPY viralbert viralbert
COPY data data
COPY notebooks notebooks
COPY profiles profiles
# As a checkout, because trainings read the course's sample from it.
RUN python -m pip install --no-deps --editable .
# Whoever runs it owns what comes out (--user); caches go where every user may write.
ENV HOME=/tmp USER=viralbert VIRALBERT_CACHE=/tmp/viralbert
WORKDIR /work
USER 10001
CMD ["viralbert", "check-env"]

FROM python:3.11.14-slim-trixie AS serve
WORKDIR /app
COPY requirements-image.lock pyproject.toml README.md ./
RUN pip install --no-cache-dir --require-hashes --requirement requirements-image.lock
COPY viralbert_utils viralbert_utils
COPY viralbert viralbert
RUN pip install --no-cache-dir --no-deps . && useradd --no-create-home --uid 10001 viralbert

USER 10001
ENV PYTHONUNBUFFERED=1 ORT_DISABLE_TELEMETRY=1
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s CMD ["python", "-c", \
    "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/readyz', timeout=2)"]
CMD ["viralbert", "serve", "--model", "/model", "--host", "0.0.0.0"]
