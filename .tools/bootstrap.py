"""Set l2i up in ``.venv``, with nothing but Python: ``python3 .tools/bootstrap.py``.

What it does, and says while it does it:

1. makes ``.venv`` with Python 3.11 or newer;
2. installs torch and torchaudio, for CUDA where an NVIDIA driver is seen, else for the CPU
   (``L2I_TORCH=cpu|cuda|auto`` decides otherwise);
3. installs everything else at the versions of the lock file;
4. links l2i itself (editable, without the network);
5. compiles it to bytecode, on every processor, where pip would take one;
6. checks that torch and torchaudio can be imported, and mends the one known mismatch;
7. leaves a stamp, so that the next time it is done in an instant.

The CPU build of torch is asked from pip's own sources first (``PIP_FIND_LINKS``, say), then
from PyTorch's index. Where neither has it, it stops and says so: the CUDA build is a download
of several GB that nobody should get by surprise.

Only the standard library is used, and syntax that an old Python can read, so that an old
Python can say that it is too old.
"""

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import time

MINIMUM = (3, 11)
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
STAMP = os.path.join(VENV, "l2i-stamp")
UNFINISHED = os.path.join(VENV, "l2i-unfinished")
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
# Settings that would make pip install elsewhere than into .venv.
_STRAY = ("PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PYTHONPATH", "PYTHONHOME")


class SetupError(Exception):
    """Something the reader can mend; its text says how."""


def say(sentence):
    """One line for the reader."""
    print("[setup] " + sentence, file=sys.stderr)
    sys.stderr.flush()


def newer_python():
    """The path of a Python on PATH that is new enough, or None."""
    for name in ("python3.11", "python3.12", "python3.13", "python3.14", "python3", "python"):
        path = shutil.which(name)
        if path is None:
            continue
        test = "import sys; sys.exit(sys.version_info < %r)" % (MINIMUM,)
        if subprocess.call([path, "-c", test], stderr=subprocess.DEVNULL) == 0:
            return path
    return None


def pins():
    """Versions of torch and torchaudio that pyproject.toml pins."""
    with open(os.path.join(ROOT, "pyproject.toml"), encoding="utf-8") as file:
        text = file.read()
    return dict(re.findall(r'"(torch|torchaudio)==([^"]+)"', text))


def has_nvidia():
    """Whether an NVIDIA driver answers."""
    if os.path.exists("/proc/driver/nvidia/version"):
        return True
    program = shutil.which("nvidia-smi") or "/usr/lib/wsl/lib/nvidia-smi"
    try:
        return (
            subprocess.call(
                [program, "-L"],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=30,
            )
            == 0
        )
    except (OSError, subprocess.TimeoutExpired):
        return False


def choose_flavour():
    """``cpu`` or ``cuda``, by L2I_TORCH or by what the machine has."""
    word = os.environ.get("L2I_TORCH", "").strip().lower() or "auto"
    if word not in ("auto", "cpu", "cuda"):
        raise SetupError("L2I_TORCH=%s is none of cpu, cuda, auto." % word)
    if word != "auto":
        return word
    return "cuda" if has_nvidia() else "cpu"


def lock_file(flavour):
    """The lock file of a flavour."""
    return os.path.join(ROOT, "requirements-%s.lock" % flavour)


def stamp_text(flavour):
    """What must not have changed since the last set-up, in one line."""
    digest = hashlib.sha256()
    for path in (lock_file(flavour), os.path.join(ROOT, "pyproject.toml"), __file__):
        with open(path, "rb") as file:
            digest.update(file.read())
    # A virtual environment that was moved or copied points to its old place.
    digest.update(VENV.encode("utf-8"))
    return "%s %s\n" % (flavour, digest.hexdigest())


def read(path):
    """The text of a file, or an empty one."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError:
        return ""


def venv_python():
    """The virtual environment's Python."""
    return os.path.join(VENV, "bin", "python")


def _environment():
    return {key: value for key, value in os.environ.items() if key not in _STRAY}


def pip(*words, **options):
    """Run pip in the virtual environment; its exit status. With `quiet`, without a word."""
    command = [venv_python(), "-m", "pip", "--disable-pip-version-check", "--no-input"]
    if words[0] == "install":
        words = ("install", "--no-compile") + words[1:]  # `compile_packages` does, afterwards.
    sink = subprocess.DEVNULL if options.get("quiet") else None
    return subprocess.call(
        command + list(words), cwd=ROOT, env=_environment(), stdout=sink, stderr=sink
    )


def must_pip(what, *words):
    """Run pip, or stop with a sentence that says what could not be installed."""
    if pip("install", "-qq", *words) != 0:
        raise SetupError(
            "%s could not be installed; pip's own words are above. The same command goes on "
            "once the cause is mended." % what
        )


def reachable(url, timeout_s=5):
    """Whether a web server answers, whatever it says."""
    import urllib.error
    import urllib.request

    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=timeout_s)
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False
    return True


def install_cpu_torch():
    """torch and torchaudio for the CPU, from wherever a CPU build is at hand."""
    version = pins()
    torch, torchaudio = "torch==" + version["torch"], "torchaudio==" + version["torchaudio"]
    if platform.system() != "Linux":
        # Elsewhere PyPI's own build is the one for the CPU.
        must_pip("torch", "--no-deps", torch, torchaudio)
        say("Installed %s from PyPI." % torch)
        return
    if pip("install", "-q", "--no-deps", torch + "+cpu", quiet=True) == 0:
        say("Installed the CPU build of %s from pip's configured sources." % torch)
        index = ()
    elif reachable(CPU_INDEX + "/torch/"):
        index = ("--index-url", CPU_INDEX)
        must_pip("The CPU build of torch", "--no-deps", torch + "+cpu", *index)
        say("Installed the CPU build of %s from %s." % (torch, CPU_INDEX))
    else:
        raise SetupError(
            "There is no CPU build of %s at hand: pip's sources have none for this Python, and "
            "%s does not answer. Put the wheel into a folder and set PIP_FIND_LINKS to it; or say "
            "L2I_TORCH=cuda for PyPI's build, which works without a GPU too but is a download of "
            "about 3 GB." % (torch, CPU_INDEX)
        )
    if pip("install", "-q", "--no-deps", torchaudio + "+cpu", *index, quiet=True) != 0:
        must_pip("torchaudio", "--no-deps", torchaudio)


def site_packages():
    """The folder of what is installed in the virtual environment."""
    return subprocess.check_output(
        [venv_python(), "-c", "import sysconfig; print(sysconfig.get_path('platlib'))"],
        env=_environment(),
        universal_newlines=True,
    ).strip()


def compile_packages():
    """Bytecode of all that is installed but the packages' own tests: some 15,000 files.

    Without it whatever is imported would be compiled at first, and at every start where
    PYTHONDONTWRITEBYTECODE is set. A file that is no Python of this version is left as it is.
    An image says PIP_NO_COMPILE, and compiles what it imports (docker/trim.py).
    """
    if os.environ.get("PIP_NO_COMPILE"):
        return
    # Below it: a checkout in a folder "tests" is none of theirs.
    tests = "^" + re.escape(site_packages()) + "/(.*/)?tests?/"
    subprocess.call(
        [venv_python(), "-m", "compileall", "-q", "-j", "0", "-x", tests, site_packages()],
        env=_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _try_import(module):
    done = subprocess.run(
        [venv_python(), "-c", "import " + module],
        env=_environment(),
        cwd=VENV,  # Not the checkout, whose folders would shadow what is installed.
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        universal_newlines=True,
    )
    lines = done.stderr.strip().splitlines()
    return None if done.returncode == 0 else (lines[-1] if lines else "no reason given")


def check_torch():
    """Import torch and torchaudio; take torchaudio's libraries away where they do not fit."""
    problem = _try_import("torch")
    if problem:
        raise SetupError("torch was installed but cannot be imported: %s." % problem)
    problem = _try_import("torchaudio")
    if problem is None:
        return
    # PyPI's torchaudio is linked against CUDA, and does not load beside a torch without it. Its
    # transforms are pure torch, and work once the libraries are out of the way.
    folder = os.path.join(site_packages(), "torchaudio", "lib")
    there = os.listdir(folder) if os.path.isdir(folder) else []
    libraries = sorted(name for name in there if ".so" in name)
    for name in libraries:
        os.remove(os.path.join(folder, name))
    still = _try_import("torchaudio")
    if not libraries or still:
        raise SetupError(
            "torchaudio was installed but cannot be imported: %s." % (still or problem)
        )
    say(
        "torchaudio's compiled libraries (%s) do not fit this build of torch; removed them from "
        ".venv. Its pure-torch part, which is all that l2i uses, works." % ", ".join(libraries)
    )


def make_venv():
    """A fresh virtual environment, or the one that is there if it is whole."""
    if os.path.exists(UNFINISHED):
        say("The last set-up was interrupted; starting again.")
        shutil.rmtree(VENV)
    if read(STAMP) and not os.access(venv_python(), os.X_OK):
        say("The Python that .venv was made with is gone; making .venv again.")
        shutil.rmtree(VENV)
    fresh = not os.path.exists(venv_python())
    os.makedirs(VENV, exist_ok=True)
    with open(UNFINISHED, "w", encoding="utf-8") as file:
        file.write("This environment is not whole; `make setup` makes it again.\n")
    if os.path.exists(STAMP):
        os.remove(STAMP)
    if fresh:
        say("Making .venv with Python %s." % platform.python_version())
        if subprocess.call([sys.executable, "-m", "venv", VENV], env=_environment()) != 0:
            raise SetupError(
                "Python's venv module does not work; on Debian and Ubuntu: apt install "
                "python3-venv."
            )


def set_up():
    """All of it; True if something was done."""
    flavour = choose_flavour()
    wanted = stamp_text(flavour)
    if read(STAMP) == wanted and os.access(venv_python(), os.X_OK):
        return False
    start = time.time()
    if platform.python_implementation() != "CPython":
        raise SetupError("l2i needs CPython; this is %s." % platform.python_implementation())
    if read(STAMP) and not read(STAMP).startswith(flavour + " "):
        say("Changing torch to the build for %s; making .venv again." % flavour)
        shutil.rmtree(VENV)
    make_venv()
    lock = lock_file(flavour)
    if flavour == "cpu":
        install_cpu_torch()
    else:
        say("Installing torch for CUDA: about 3 GB, unless pip has it in its cache.")
    say("Installing the packages of %s." % os.path.basename(lock))
    must_pip("A package", "--no-deps", "--require-hashes", "-r", lock)
    must_pip("l2i itself", "--no-deps", "--no-build-isolation", "--no-index", "-e", ".")
    compile_packages()
    check_torch()
    with open(STAMP, "w", encoding="utf-8") as file:
        file.write(wanted)
    os.remove(UNFINISHED)
    say("Ready after %d s: .venv/bin/l2i --help" % (time.time() - start))
    return True


def main():
    """Set up, or say in a sentence why not; the exit status."""
    if sys.version_info < MINIMUM:
        other = newer_python()
        if other is None:
            say(
                "l2i needs Python %d.%d or newer; this is %s, and no newer one is on PATH."
                % (MINIMUM + (platform.python_version(),))
            )
            return 1
        os.execv(other, [other, os.path.abspath(__file__)] + sys.argv[1:])
    import fcntl

    # Two set-ups at once, `make test` beside `make demo` say: the second waits for the first.
    folder = os.open(ROOT, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        set_up()
    except SetupError as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        say("Stopped; the same command starts again.")
        return 130
    finally:
        os.close(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
