# An engine's own image with our supervisor in front of its server:
#
#   docker build -f docker/engine.Dockerfile --build-arg ENGINE_IMAGE=nvcr.io/nvidia/tritonserver:25.06-py3 --build-arg ROLE=triton -t clearml-serving-triton .
#   docker build -f docker/engine.Dockerfile --build-arg ENGINE_IMAGE=docker.io/pytorch/torchserve:0.12.0-cpu --build-arg ROLE=torchserve -t clearml-serving-torchserve .
ARG ENGINE_IMAGE=nvcr.io/nvidia/tritonserver:25.06-py3
ARG SERVING_IMAGE=clearml-serving-inference:latest
# hadolint ignore=DL3007
FROM ${SERVING_IMAGE} AS serving

FROM ${ENGINE_IMAGE}
ARG ROLE=triton
# Instances are in other containers. Triton's calls that change models are closed then.
ENV CLEARML_SERVING_HOME=/var/lib/clearml-serving HOME=/root CLEARML_SERVING_ROLE=${ROLE} \
    CLEARML_TRITON_T_GRPC_ADDRESS=0.0.0.0
USER 0:0
# The engine's model repository is in the data folder, and /models is what the original has.
RUN install -d -o 10001 -g 0 -m 2775 /var/lib/clearml-serving /models && chmod 755 /root
COPY --from=serving /usr/local/bin/clearml-serving /usr/local/bin/clearml-serving
RUN clearml-serving version
WORKDIR /var/lib/clearml-serving
VOLUME /var/lib/clearml-serving
USER 10001:0
EXPOSE 8001
HEALTHCHECK --interval=15s --timeout=10s --start-period=120s CMD ["clearml-serving", "probe"]
# The role is decided when the image is built; exec makes the supervisor process 1.
ENTRYPOINT ["/bin/sh", "-c", "exec clearml-serving \"$CLEARML_SERVING_ROLE\" \"$@\"", "clearml-serving"]
