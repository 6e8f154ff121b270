# One image for worker, producer and Flower. docker-compose.yml says which command each one runs.
#
# Not measured: the test suite checks this file's facts and runs the compose file's commands without
# containers; building the image needs an engine.
#
# Build arguments, all optional:
#   TORCH_INDEX_URL  the package index for torch itself. Empty: pip's own, whose build for Linux is the CUDA
#                    one, of several gigabytes. Without a GPU, name torch's CPU index here (the installation
#                    page of PyTorch gives its address).
#   PIP_INDEX_URL    the index for everything else. Empty: pip's own.
#   UID              the user that everything runs as, and its group. Give yours (`id -u`) if outputs go to a
#                    folder of yours instead of a volume.
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS build
ARG PIP_INDEX_URL=""
ARG TORCH_INDEX_URL=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/imagemill
ENV PATH=/opt/imagemill/bin:$PATH
WORKDIR /src
COPY pyproject.toml constraints.txt ./
# --no-deps: torch's index has other versions of its dependencies than constraints.txt pins.
RUN if [ -n "$TORCH_INDEX_URL" ]; then \
        pip install --no-deps --index-url "$TORCH_INDEX_URL" --constraint constraints.txt torch; \
    fi
# The dependencies before the code, so that changing the code does not download torch again.
RUN python -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; extras = project['optional-dependencies']; print(*project['dependencies'], *extras['worker'], *extras['flower'], *extras['cloud'], sep='\n')" > requirements.txt \
    && pip install --constraint constraints.txt --requirement requirements.txt
COPY README.md LICENSE ./
COPY jobs jobs
COPY producer producer
COPY worker worker
RUN pip wheel --no-deps --wheel-dir /wheels . \
    && pip install --constraint constraints.txt "$(ls /wheels/imagemill-*.whl)[worker,flower,cloud]"

FROM python:${PYTHON}-slim
ARG UID=10001
# A new volume takes the owner and the mode of the folder that it is mounted on.
RUN groupadd --gid ${UID} imagemill \
    && useradd --uid ${UID} --gid ${UID} --home-dir /cache --no-create-home --shell /usr/sbin/nologin imagemill \
    && install -d -o ${UID} -g ${UID} -m 0755 /cache /outputs \
    && install -d -o ${UID} -g ${UID} -m 0700 /var/lib/imagemill
COPY --from=build /opt/imagemill /opt/imagemill
# HOME is the cache volume: the root file system is read-only.
ENV PATH=/opt/imagemill/bin:$PATH HOME=/cache PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER ${UID}:${UID}
CMD ["imagemill", "--help"]
