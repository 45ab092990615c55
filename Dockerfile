# An image of satpipe for processors, whose entry point is `satpipe`:
#   docker build -t satpipe .
#   docker run --rm --init --user "$(id -u):$(id -g)" -v /recordings:/recordings:ro -v "$PWD:/data" satpipe \
#     tag /recordings
# For NVIDIA GPUs (run it with `--gpus all`):
#   docker build -t satpipe:cuda --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 .
ARG PYTHON=3.11

FROM python:${PYTHON}-slim-bookworm AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=s3,ffmpeg
WORKDIR /src
COPY . .
# ray[default] has what Ray's dashboard and its jobs need: clusters that KubeRay and `ray up` start use this image too.
# What is removed is for those who compile extensions of torch.
# hadolint ignore=DL3013
RUN python -m pip install --no-cache-dir --no-warn-script-location --prefix=/install --extra-index-url "$TORCH_INDEX" \
        ".[$EXTRAS]" "ray[default]" \
    && rm -r /install/lib/python*/site-packages/torch/include

FROM python:${PYTHON}-slim-bookworm
# KubeRay asks a node through wget whether it is well.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --no-install-recommends --yes wget \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 satpipe \
    && install --directory --owner=satpipe --mode=0777 /data
COPY --from=build /install /usr/local
USER 1000
WORKDIR /data
ENTRYPOINT ["satpipe"]
CMD ["--help"]
