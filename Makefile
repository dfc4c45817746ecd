# Two commands: `make train` sets everything up and runs the whole job; `make test` sets up and runs the tests.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
RUNS   := $(addprefix results/,nearest bicubic i2sb_sr4x_nfe1 i2sb_sr4x_nfe10)

.PHONY: train test lint clean

train: $(READY)
	$(BIN)/basicsr train -opt options/i2sb_sr4x.yml
	$(BIN)/basicsr test -opt options/bicubic_sr4x.yml
	$(BIN)/basicsr test -opt options/bicubic_sr4x.yml --force_yml name=nearest network_g:mode=nearest-exact
	$(BIN)/basicsr test -opt options/i2sb_sr4x.yml --force_yml name=i2sb_sr4x_nfe1 val:sampler:nfe=1
	$(BIN)/basicsr test -opt options/i2sb_sr4x.yml --force_yml name=i2sb_sr4x_nfe10 val:sampler:nfe=10
	$(BIN)/basicsr report $(RUNS) --sheet results/sr4x.png --originals datasets/photographs/val

test: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# BasicSR first, without its build's own download of torch; then the rest, with the project in place for editing.
$(READY): setup.py requirements.txt basicsr_ext/install.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip "setuptools>=70" wheel
	$(BIN)/python -m pip install --quiet --requirement requirements.txt --requirement requirements-test.txt
	$(BIN)/python -m basicsr_ext.install
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
