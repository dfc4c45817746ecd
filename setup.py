"""Installs both packages, the command `basicsr` and the plugin's entry point."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "i2sb_plugin" / "__init__.py").read_text())[1]
RUNTIME = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and not line.startswith("#")]
EXTRAS = {
    "test": ["pytest>=8", "ruff"],
    "perceptual": ["lpips", "DISTS-pytorch"],
    "fid": ["torch-fidelity>=0.4", "clean-fid>=0.1.35"],
    "foreign": ["spandrel>=0.4"],
    "completion": ["shtab>=1.7"],
    "onnx": ["onnx>=1.15", "onnxruntime>=1.17"],
}
EXTRAS["all"] = [name for extra in ("perceptual", "fid", "foreign", "completion", "onnx") for name in EXTRAS[extra]]

setup(
    name="basicsr-i2sb",
    version=VERSION,
    description="I2SB, the image-to-image Schroedinger bridge, as a plugin of BasicSR",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    # options/ lies beside the packages in a checkout and inside one of them in a wheel: `basicsr init` starts from it.
    packages=[*find_packages(include=["i2sb_plugin*", "basicsr_ext*"]), "i2sb_plugin.templates"],
    package_dir={"i2sb_plugin.templates": "options"},
    package_data={
        "i2sb_plugin.templates": ["*.yml", "*.txt", "imagenet256/*.yml"],
        "i2sb_plugin": ["py.typed", "weights/*.safetensors"],
        "basicsr_ext": ["py.typed", "benchmark/page/parts/*"],
    },
    # BasicSR's source release cannot be built by Python 3.13: `python -m basicsr_ext.install` does it there.
    install_requires=[*RUNTIME, 'basicsr>=1.4.2; python_version < "3.13"'],
    extras_require=EXTRAS,
    entry_points={
        "console_scripts": ["basicsr = basicsr_ext.cli:main"],
        "basicsr.commands": [
            "import-i2sb = i2sb_plugin.weights.commands:import_i2sb",
            "export-i2sb = i2sb_plugin.weights.commands:export_i2sb",
            "import-adm = i2sb_plugin.weights.commands:import_adm",
        ],
        "basicsr.templates": ["i2sb = i2sb_plugin.plugin:templates"],
        "basicsr.checkpoints": ["i2sb_sr4x = i2sb_plugin.weights.builtin:checkpoint"],
        "basicsr.plugins": ["builtin = basicsr_ext.models.register:register", "i2sb = i2sb_plugin.plugin:register"],
    },
)
