# Shortcuts: each target is one or two commands that also work by hand.
PYTHON ?= python3
VENV := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
# The theme prints news about other programs.
export NO_MKDOCS_2_WARNING := 1

.PHONY: demo test test-random test-slow faults fuzz slurm-test gpu-check lint bench lock schema docs clean

demo: $(VENV)/installed
	snakemake demo

test: $(VENV)/installed
	python -m pytest --numprocesses 2 --dist loadfile -m "not slow and not slurm"

# Draws new random examples for the property tests.
test-random: $(VENV)/installed
	python -m pytest --numprocesses 2 --dist loadfile --hypothesis-profile random -m "not slow and not slurm"

test-slow: $(VENV)/installed
	python -m pytest -m slow

# Bad input, and a fault at each write of each stage; ends with a table of what was tried.
faults: $(VENV)/installed
	python -m pytest --numprocesses 2 --dist worksteal tests/faults/test_bad_inputs.py tests/faults/test_injected_faults.py

# A thousand new damages to a small file of each kind; some three minutes on two cores.
fuzz: $(VENV)/installed
	python -m pytest --numprocesses 2 --dist worksteal --hypothesis-profile fuzz tests/fuzz

# If SLURM cannot be installed, the tests are skipped and print the reason.
slurm-test: $(VENV)/installed
	-(command -v munged && command -v slurmctld && command -v slurmd) || (apt-get update --quiet && \
		DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes --no-install-recommends slurm-wlm munge)
	python -m pytest tests/slurm -rs

# Without a GPU it says so.
gpu-check: $(VENV)/installed
	python benchmarks/gpu_check.py

lint: $(VENV)/installed
	ruff check .
	ruff format --check .
	mypy stages rules docs/configuration.py
	lint-imports
	snakefmt --check workflow rules
	snakemake --lint
	hadolint envs/Dockerfile
	mkdocs build --strict

bench: $(VENV)/installed
	failed=0; for script in $(filter-out %published_reference.py %gpu_check.py,$(wildcard benchmarks/*.py)); do \
		python $$script || failed=1; done; exit $$failed

# Resolves the version ranges of pyproject.toml to exact versions with hashes.
lock:
	uv pip compile --quiet --generate-hashes --no-header --all-extras --python-version 3.11 \
		--python-platform x86_64-manylinux_2_28 pyproject.toml --output-file envs/lock.txt

# What the models of the configuration say: for editors, and as a page.
schema: $(VENV)/installed
	python -m stages.core.config workflow/schemas/config.schema.json
	python -m docs.configuration docs/configuration.md

# The documentation: site/index.html opens from the disk.
docs: $(VENV)/installed
	mkdocs build --strict

$(VENV)/installed: envs/lock.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info[:2] != (3, 11) and 'Python 3.11 is needed, found ' + sys.version + '; name it: make PYTHON=/path/to/python3.11')"
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --require-hashes --no-deps --requirement envs/lock.txt
	touch $@

clean:
	rm -rf results data/demo .snakemake site
