# One image for worker, producer and Flower. docker-compose.yml says which command each one runs.
#
# Its layers, from what changes seldom to what changes often: Debian's packages, the dependencies (gigabytes, made
# again when a dependency or constraints.txt changes), imagemill itself (some megabytes), labels. So a new version
# of imagemill neither installs torch again nor sends it to a registry again. No feature of BuildKit is needed.
#
# Build arguments, all optional:
#   PYTHON           the version of Python.
#   BASE             the image that has it.
#   TORCH_INDEX_URL  the package index for torch and torchvision. Empty: pip's own, whose build for Linux is the CUDA
#                    one, of several gigabytes. Without a GPU, name torch's CPU index here (the installation
#                    page of PyTorch gives its address).
#   PIP_INDEX_URL    the index for everything else. Empty: pip's own.
#   COMPILER         Debian's packages for torch.compile (IMAGEMILL_TORCH_COMPILE=1), 375 MB. Empty: none. Where BASE has
#                    Debian's own Python, `g++ python3-dev`.
#   UID              the user that everything runs as, and its group. Give yours (`id -u`) if outputs go to a
#                    folder of yours instead of a volume.
#   REVISION         the commit that the image is built from, for its label.
ARG PYTHON=3.11
ARG BASE=python:${PYTHON}-slim

# What must be installed: all but what tests and checks need, and nothing else of pyproject.toml. As long as this text
# stays the same, so do the layers of dependencies.
FROM ${BASE} AS requirements
WORKDIR /src
COPY pyproject.toml ./
RUN python -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; extras = project['optional-dependencies']; print(*project['dependencies'], *(need for name in extras if name != 'dev' for need in extras[name]), sep='\n')" > requirements.txt

FROM ${BASE} AS dependencies
ARG PIP_INDEX_URL=""
ARG TORCH_INDEX_URL=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/imagemill
ENV PATH=/opt/imagemill/bin:$PATH
WORKDIR /src
COPY constraints.txt ./
# --no-deps: torch's index has other versions of its dependencies than constraints.txt pins.
RUN if [ -n "$TORCH_INDEX_URL" ]; then \
        pip install --no-deps --index-url "$TORCH_INDEX_URL" --constraint constraints.txt torch torchvision; \
    fi
COPY --from=requirements /src/requirements.txt ./
RUN pip install --constraint constraints.txt --requirement requirements.txt

FROM dependencies AS imagemill
ARG PIP_INDEX_URL=""
COPY pyproject.toml README.md LICENSE ./
COPY jobs jobs
COPY producer producer
COPY worker worker
# Into a folder of its own, which has the shape of the environment it is then laid over. Not isolated: an isolated
# build takes the newest setuptools, whatever constraints.txt pins.
RUN pip install --constraint constraints.txt setuptools \
    && pip install --no-deps --no-build-isolation --prefix /layer .

FROM ${BASE}
ARG COMPILER="g++"
RUN if [ -n "$COMPILER" ]; then \
        apt-get update && apt-get install --yes --no-install-recommends $COMPILER && rm -rf /var/lib/apt/lists/*; \
    fi
ARG UID=10001
# A new volume takes the owner and the mode of the folder that it is mounted on. /outputs is where outputs lay in
# earlier versions of docker-compose.yml: jobs that name it go on.
RUN groupadd --gid ${UID} imagemill \
    && useradd --uid ${UID} --gid ${UID} --home-dir /cache --no-create-home --shell /usr/sbin/nologin imagemill \
    && install -d -o ${UID} -g ${UID} -m 0755 /cache /work /work/out \
    && install -d -o ${UID} -g ${UID} -m 0700 /var/lib/imagemill \
    && ln -s /work/out /outputs
COPY --from=dependencies /opt/imagemill /opt/imagemill
COPY --from=imagemill /layer /opt/imagemill
# HOME is the cache volume: the root file system is read-only. What torch.compile makes is run from there, because
# nothing in /tmp may be run; and it is kept.
ENV PATH=/opt/imagemill/bin:$PATH HOME=/cache PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    TORCHINDUCTOR_CACHE_DIR=/cache/torchinductor TRITON_CACHE_DIR=/cache/triton
ARG REVISION=""
LABEL org.opencontainers.image.title="imagemill" \
      org.opencontainers.image.description="A distributed batch image generation queue: YAML manifests in, datasets of pictures with their metadata out." \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.revision="${REVISION}"
USER ${UID}:${UID}
WORKDIR /work
CMD ["imagemill", "--help"]
