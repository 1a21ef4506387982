# Two commands: `make demo` and `make test`. Both set up everything they need, once.
PYTHON ?= python3
VENV := .venv
VENV_GP := .venv-gp
BIN := $(VENV)/bin
# Data that `make data` had to unpack beside the checkout.
ifneq ($(wildcard .data/fashion-mnist),)
export TUNEFLEET_DATA_DIR := $(CURDIR)/.data/fashion-mnist
endif

.PHONY: demo test test-stress test-ray test-ray-vms test-browser test-long test-gp test-image \
    test-k8s lint data lock protos bench clean
.DEFAULT_GOAL := test

$(VENV)/.runtime: requirements.txt requirements-uv.txt
	$(PYTHON) tools/set_up.py $(VENV) requirements.txt
	touch $@

$(VENV)/.dev: $(VENV)/.runtime requirements-dev.txt
	$(PYTHON) tools/set_up.py $(VENV) requirements-dev.txt
	touch $@

$(VENV)/.browser: $(VENV)/.dev requirements-browser.txt
	$(PYTHON) tools/set_up.py $(VENV) requirements-browser.txt
	touch $@

data: $(VENV)/.runtime
	sh tools/get_data.sh $(BIN)/python

# The main job, small: real Fashion-MNIST, a chief and two workers, a few minutes.
demo: data
	$(BIN)/python launch.py run cnn-dropout --id demo --seed 7 --workers 2 \
	    --trials 8 --epochs 4 --train-examples 12000

test: $(VENV)/.dev data
	$(BIN)/python -m pytest -n 3 --dist loadfile

# The same again and again, in random order beside a busy core:
# `make test-stress REPEAT=5 SEED=7`. Each run takes about as long as `make test` on one core.
REPEAT ?= 5
test-stress: $(VENV)/.dev data
	$(BIN)/python tools/stress.py --repeat $(REPEAT) $(if $(SEED),--seed $(SEED)) -- \
	    -n 3 --dist loadfile

# What starts Ray: by itself, since Ray wants its processes up within half a minute.
test-ray: $(VENV)/.dev data
	sh tools/retry_failed.sh $(BIN)/python -m pytest -m ray

# `ray up` over SSH on hosts that are namespaces: needs root, openssh-server, rsync and iproute2.
test-ray-vms: $(VENV)/.dev
	sh tools/get_commands.sh ip=iproute2 sshd=openssh-server rsync
	sh tools/retry_failed.sh $(BIN)/python -m pytest -m ray_vms tests/ray_vms

# The HParams page as a person sees it, in Chromium; pictures go to .browser/.
test-browser: $(VENV)/.browser
	sh tools/get_commands.sh chromium chromedriver=chromium-driver
	$(BIN)/python -m pytest -m browser tests/integration/test_browser.py --screenshots=.browser

# What takes minutes: hundreds of replayed benchmarks, whose statistics are known beforehand.
test-long: $(VENV)/.dev data
	$(BIN)/python -m pytest -m long --timeout=1800 tests/unit/test_statistics.py

# On a real control plane of Kubernetes, which is built once: needs Go, root and, at first, some
# ten minutes on two cores.
test-k8s: $(VENV)/.dev
	sh tests/k8s/build.sh
	sh tools/retry_failed.sh $(BIN)/python -m pytest -m k8s tests/k8s

# The sampler `gp`, in an environment of its own: PyTorch takes several gigabytes.
test-gp: $(VENV_GP)/.gp
	$(VENV_GP)/bin/python -m pytest -m gp tests/conformance/test_samplers.py tests/conformance/test_sampler_conformance.py

$(VENV_GP)/.gp: requirements.txt requirements-dev.txt requirements-gp.txt requirements-uv.txt
	$(PYTHON) tools/set_up.py $(VENV_GP) requirements.txt requirements-dev.txt requirements-gp.txt
	touch $@

# The container image, built and run as a cluster would: see the script for what it needs.
test-image:
	sh tools/test_image.sh

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# What takes long, or compares with others: see benchmarks/README.md.
bench: $(VENV)/.dev data
	$(BIN)/python benchmarks/chief_cost.py
	$(BIN)/python benchmarks/stock_keras_tuner.py
	$(BIN)/python benchmarks/sampler_quality.py
	$(BIN)/python benchmarks/suggestion_cost.py

# With the hash of every file, so that nothing else is ever installed.
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
    --no-emit-index-url --no-annotate --custom-compile-command "make lock"

lock: $(VENV)/.runtime
	for name in requirements-uv requirements requirements-gpu requirements-dev \
	    requirements-browser requirements-gp; do $(COMPILE) $$name.in -o $$name.txt; done
	# What a cloud's own packages want of a version that is locked already does not count.
	$(COMPILE) --override requirements-gpu.txt requirements-vm.in -o requirements-vm.txt

protos: $(VENV)/.dev
	$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. --grpc_python_out=. \
	    hpo/fleet/fleet.proto

clean:
	rm -rf $(VENV) $(VENV_GP) .browser .pytest_cache .mypy_cache .ruff_cache .hypothesis
