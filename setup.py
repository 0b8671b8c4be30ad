"""Puts the launchers and flagfiles into the wheel; pyproject.toml has all else."""

import setuptools

setuptools.setup(
    packages=[
        *setuptools.find_packages(include=["nppac_tf*"]),
        *("nppac_tf.launch", "nppac_tf.launch.common", "nppac_tf.configs"),
    ],
    package_dir={"nppac_tf.launch": "launch", "nppac_tf.configs": "configs"},
)
