# `make demo` and `make test` need git, make and Python >= 3.10, and make their own environment in .venv.
# Times are those of two processors with nothing else to do.
# The tests of TensorBoard's tabs look at them in Debian's chromium: as root `make test` installs it where it is missing,
# for anybody else they are skipped and say what to install. So it is with strace and libfaketime, which some of the
# fault tests take. With CI=true they fail instead.
PYTHON ?= python3
BIN    := .venv/bin
EXTRAS ?= dev

.PHONY: demo quick test test-all check docs browser fault-tools programs frameworks faults mutants soak fuzz bench bench-peers bench-all bench-page clean

.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$(EXTRAS)]'
	touch $@

demo: .venv/installed          ## train a small model in two processes and log everything
	$(BIN)/tbxd demo

# Half of a test's time is waiting for processes, so one more at a time than there are processors.
WORKERS ?= $(shell expr $$(nproc) + 1)
PYTEST  := $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup

quick: .venv/installed         ## style, and tests/unit, what is pure logic: a minute
	$(BIN)/ruff check .
	TBXD_EXAMPLES_SHARE=0.25 $(PYTEST) -m "not matrix and not long" tests/unit tests/slips

test: check browser fault-tools ## style, types, and every test that does not take long: 6 minutes
	TBXD_EXAMPLES_SHARE=0.25 $(PYTEST) -m "not matrix and not long"

test-all: check docs browser fault-tools ## those that take long as well, as in continuous integration: 20 minutes
	$(PYTEST)

check: .venv/installed         ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/installed          ## the pages of docs/ as a site in build/site; what links to nothing ends it
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

browser:                       ## chromium for the tests, where it is missing and we may
	@if ! { command -v chromium && command -v chromedriver; } >/dev/null && \
	  [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update --quiet && DEBIAN_FRONTEND=noninteractive \
	    apt-get install --quiet --yes --no-install-recommends chromium chromium-driver fonts-dejavu-core || \
	    echo "chromium could not be installed"; \
	fi

fault-tools:                   ## strace, libfaketime, and what makes file systems, for the fault tests, where they are missing and we may
	@if ! { command -v strace mkfs.btrfs mkfs.xfs xfs_io && ls /usr/lib/*/faketime/libfaketimeMT.so.1; } >/dev/null 2>&1 && \
	  [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update --quiet && DEBIAN_FRONTEND=noninteractive \
	    apt-get install --quiet --yes --no-install-recommends strace libfaketime btrfs-progs xfsprogs || \
	    echo "strace, libfaketime, btrfs-progs and xfsprogs could not be installed"; \
	fi

programs: .venv/installed frameworks ## the gallery: each program with its original writer, and with tbxd; ONLY=name for some
	TBXD_PROGRAMS=$(ONLY) TBXD_PROGRAM_TABLE=1 $(BIN)/python -m pytest tests/programs -m matrix

FRAMEWORKS := lightning accelerate transformers stable-baselines3 pytorch-ignite skorch
.venv-frameworks/installed: .venv/installed
	test -x .venv-frameworks/bin/python || $(PYTHON) -m venv .venv-frameworks
	$(BIN)/python -c 'import sysconfig; print("import site; site.addsitedir(%r)" % sysconfig.get_path("purelib"))' \
	  > $$(.venv-frameworks/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/beside.pth
	.venv-frameworks/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt $(FRAMEWORKS)
	touch $@

frameworks:                    ## those that programs of the gallery are written with, beside .venv; without them these are skipped
	@$(MAKE) --no-print-directory .venv-frameworks/installed || echo "the frameworks could not be installed"

faults: .venv/installed fault-tools ## every fault, and a table of what became of the records; TBXD_KILLS, TBXD_SEED
	TBXD_FAULT_TABLE=1 $(BIN)/python -m pytest tests/faults -m "matrix or not matrix"

# A slip that no test notices is named. ONLY=hub for some, SAMPLE=40 for so many of those made by hand, SEED draws both samples.
JOBS ?= 1
SEED ?= 1
mutants: .venv/installed       ## small slips made one by one in a copy of the tree: whether the tests notice nine of ten
	$(BIN)/python tests/slips/mutants.py --jobs $(JOBS) --seed $(SEED) --only "$(ONLY)" $(if $(SAMPLE),--sample $(SAMPLE))

MINUTES ?= 60
soak: .venv/installed          ## 16 ranks at 1 kHz, a kill a minute
	$(BIN)/python tests/faults/soak.py --minutes $(MINUTES)

.venv/fuzz-tools: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[fuzz]'
	touch $@

SECONDS ?= 60
fuzz: .venv/fuzz-tools         ## what reads bytes, by coverage: SECONDS for each target, or only TARGET=session
	$(BIN)/python tests/fuzz/fuzz.py --seconds $(SECONDS) $(if $(TARGET),--target $(TARGET))

# Results are kept in benchmarks/results, one file for each question; `make bench-page` writes docs/BENCHMARKS.md from them.
ROUNDS ?= 3
bench: .venv/installed         ## tbxd beside tensorboardX, torch and a csv row, in one run of 10 minutes at most
	$(BIN)/python -m benchmarks --rounds $(ROUNDS)

bench-peers: .venv/installed   ## an environment in .venv-peers for each other tracker, in the versions of benchmarks/environments
	$(BIN)/python -m benchmarks.environment

bench-all: .venv/installed     ## every peer that is installed, and curves: against records, size, tags, runs, processes
	$(BIN)/python -m benchmarks --all --rounds $(ROUNDS)

bench-page: .venv/installed    ## docs/BENCHMARKS.md, its plots and the README's table, from the results
	$(BIN)/python -m benchmarks.page

clean:
	rm -rf .venv .venv-peers .venv-frameworks .fuzz build dist *.egg-info
