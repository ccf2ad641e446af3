"""What a learner's code may not do while it is graded: resource limits, no network, no new processes, no files but its own.

Four walls, each put up where the system has it: rlimits (POSIX), Landlock (Linux 5.13, files), seccomp (Linux with libseccomp, system calls), and
everywhere an audit hook of Python, which gives the readable errors. They stop accidents and the tricks that a course sees. They are no
prison: the answer and its judge share one process, so an instructor still looks at what stands out.
"""

import ctypes
import dataclasses
import errno
import os
import site
import sys

NO_NETWORK = "there is no network while coursework is graded"
NO_PROCESSES = "no other process can be started while coursework is graded"
NO_INPUT = "nobody can answer input() while coursework is graded"
NO_SIGNALS = "no other process can be reached while coursework is graded"


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one submission gets: seconds of computing per cell, MiB beyond what the kernel has at its start, threads and processes at once.

    file_mb: the largest file that it may write; all together twice that. output_kb: what is kept of a cell's output.
    """

    seconds: float = 30
    memory_mb: int = 2000
    processes: int = 100
    file_mb: int = 200
    output_kb: int = 100

    def patience(self, whole=False):
        """Wall-clock seconds for a cell, or for the whole job: more than its computing time, since others may use the machine, too."""
        return (20 if whole else 4) * self.seconds + 20


def apply(limits, scratch):
    """Put up every wall that this system has around this process, for good. Returns their names. Call it before threads start."""
    walls = [name for name, wall in (("rlimits", _resources), ("landlock", _files), ("seccomp", _calls)) if wall(limits, scratch)]
    sys.addaudithook(_guard)
    return [*walls, "audit"]


def _megabytes(field):
    """A line of /proc/self/status in MiB; 0 where there is none."""
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            return next(int(line.split()[1]) // 1024 for line in file if line.startswith(field + ":"))
    except (OSError, StopIteration):
        return 0


def _resources(limits, scratch):
    """Private memory rather than address space: torch maps gigabytes that it never touches. Both soft and hard, so that nobody raises them.

    Of private memory, too, torch touches a good half (all of notebook 06: 2.4 GB mapped, 1.4 GB held). So this wall stands at twice the limit, against
    what grows faster than one can look; what is held is watched from outside, in `kernels`.
    """
    try:
        import resource
    except ImportError:  # Windows
        return False
    wanted = {"RLIMIT_CORE": 0, "RLIMIT_FSIZE": limits.file_mb * 2**20, "RLIMIT_NOFILE": 512, "RLIMIT_CPU": int(limits.patience(whole=True)) + 10}
    if sys.platform == "linux":
        wanted["RLIMIT_DATA"] = (_megabytes("VmData") + 2 * limits.memory_mb) * 2**20
    for name, most in wanted.items():
        kind = getattr(resource, name)
        hard = resource.getrlimit(kind)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))
    return True


_CREATE, _ADD, _RESTRICT = 444, 445, 446  # Landlock's system calls, the same on x86-64 and ARM64 (include/uapi/linux/landlock.h)
_READ = 0b1101  # execute, read a file, list a folder
_DEVICE = 0b0110  # write and read a file


class _Ruleset(ctypes.Structure):
    _fields_ = [("files", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64)]


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32)]


def _files(limits, scratch):
    """Read Python, the system and the package's data; write only below `scratch`. The course, its answers and other submissions are out of sight."""
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    if version < 1:
        return False
    every = (1 << (13 + (version >= 2) + (version >= 3))) - 1
    rules = _Ruleset(every, 0, 0b11 if version >= 6 else 0)  # 6: no signals and no abstract sockets to outside
    size = 24 if version >= 6 else 8
    handle = libc.syscall(_CREATE, ctypes.byref(rules), ctypes.c_size_t(size), ctypes.c_uint32(0))
    if handle < 0:
        return False
    for path, allowed in {**dict.fromkeys(_readable(), _READ), **dict.fromkeys(_devices(), _DEVICE), str(scratch): every & ~1}.items():
        _allow(libc, handle, path, allowed, every)
    libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS, which Landlock asks for
    done = libc.syscall(_RESTRICT, handle, ctypes.c_uint32(0)) == 0
    os.close(handle)
    return done


def _allow(libc, handle, path, allowed, every):
    if not os.path.exists(path):
        return
    folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
    of_files = 0b111 | (every & 1 << 14)  # what means something for a single file: execute, write, read, truncate
    rule = _Beneath(allowed if os.path.isdir(path) else allowed & of_files, folder)
    libc.syscall(_ADD, handle, ctypes.c_int(1), ctypes.byref(rule), ctypes.c_uint32(0))
    os.close(folder)


def _devices():
    return [f"/dev/{name}" for name in ("null", "zero", "random", "urandom", "full")]


def _readable():
    """Where Python, its libraries, the package, its data and downloaded models lie; no folder that could hold the course, no other process."""
    import miniclip_helpers

    from .. import runtime

    system = ["/usr", "/lib", "/lib64", "/bin", f"/proc/{os.getpid()}", "/sys/devices/system", "/sys/fs/cgroup", "/opt/conda"]
    system += [f"/etc/{name}" for name in ("ld.so.cache", "localtime", "passwd", "group", "nsswitch.conf", "os-release", "fonts", "ssl", "mime.types", "alternatives")]
    system += [f"/proc/{name}" for name in ("cpuinfo", "meminfo", "stat", "loadavg", "uptime", "version", "filesystems", "sys")]
    python = [sys.prefix, sys.base_prefix, os.path.dirname(os.path.realpath(sys.executable)), site.getusersitepackages()]
    python += [path for path in sys.path if path.endswith(("site-packages", "dist-packages", ".zip"))]
    own = [os.path.dirname(miniclip_helpers.__file__), runtime.data_dir(), runtime.notebooks_dir() / "profiles.yaml"]
    home = os.path.expanduser("~/.cache")
    models = [os.environ.get("HF_HOME") or f"{home}/huggingface", os.environ.get("TORCH_HOME") or f"{home}/torch", f"{home}/clip", f"{home}/matplotlib"]
    return [os.path.realpath(path) for path in [*system, *python, *own, *models]]


# New processes; signals to and looks into others; ways out of the walls; shared memory that no limit counts; what an instructor who is root could do to the machine.
_REFUSED = """fork vfork connect tkill rt_sigqueueinfo rt_tgsigqueueinfo pidfd_send_signal ptrace process_vm_readv process_vm_writev process_madvise pidfd_getfd kcmp
unshare setns chroot pivot_root mount umount2 move_mount open_tree fsopen fsmount open_by_handle_at mknod mknodat bpf keyctl add_key request_key perf_event_open
userfaultfd fanotify_init memfd_create shmget msgget semget sched_setaffinity sched_setattr setpriority ioprio_set
settimeofday clock_settime adjtimex clock_adjtime sethostname setdomainname swapon swapoff syslog iopl ioperm quotactl acct reboot init_module finit_module
delete_module kexec_load kexec_file_load"""

# Landlock does not look at these. They do nothing and say that it is done: `runtime.writing` sets the mode of its own files.
_IDLE = """chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat utime utimes utimensat futimesat
setxattr lsetxattr fsetxattr setxattrat removexattr lremovexattr fremovexattr removexattrat file_setattr"""
_NUMBERS = {"fchmodat2": 452, "setxattrat": 463, "removexattrat": 466, "file_setattr": 469}  # the same on every processor; an older libseccomp lacks the names
_OWNERS = {"fcntl": (8, 10, 15), "ioctl": (0x8901, 0x8902)}  # F_SETOWN, F_SETSIG, F_SETOWN_EX, FIOSETOWN, SIOCSPGRP: by these a file sends signals to any process


def _calls(limits, scratch):
    """New processes, sockets that leave the machine, connections, signals to others and ways round all that are refused by the kernel itself."""
    try:
        import pyseccomp
    except (ImportError, RuntimeError, OSError):  # not installed, or no libseccomp on this system
        return False
    arg, denied = pyseccomp.Arg, pyseccomp.ERRNO(errno.EPERM)
    wall = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    refused = {name: [()] for name in _REFUSED.split()}
    refused |= {"kill": [(arg(0, pyseccomp.NE, os.getpid()),)], "tgkill": [(arg(0, pyseccomp.NE, os.getpid()),)],
                "clone": [(arg(0, pyseccomp.MASKED_EQ, 0x10000, 0),)],  # CLONE_THREAD is not set: a process, not a thread
                "prlimit64": [(arg(0, pyseccomp.NE, 0),)]}
    refused |= {name: [(arg(1, pyseccomp.MASKED_EQ, 0xFFFFFFFF, what),) for what in asked] for name, asked in _OWNERS.items()}
    try:
        for name in _IDLE.split():
            _rule(wall, pyseccomp.ERRNO(0), name)
        for name, cases in refused.items():
            for case in cases:
                _rule(wall, denied, name, *case)
        for name in ("clone3", "io_uring_setup"):  # "not there": the C library then takes clone, whose flags can be looked at
            _rule(wall, pyseccomp.ERRNO(errno.ENOSYS), name)
        for name in ("socket", "socketpair"):
            _rule(wall, pyseccomp.ERRNO(errno.EACCES), name, arg(0, pyseccomp.NE, 1))  # 1: AF_UNIX, by which the kernel is spoken to
            for kind in (0, *range(2, 16)):  # 1: streams, which need `connect`; a datagram finds any socket of this machine
                _rule(wall, pyseccomp.ERRNO(errno.EACCES), name, arg(1, pyseccomp.MASKED_EQ, 0xF, kind))
        wall.load()
    except OSError:
        return False
    return True


def _rule(wall, action, name, *case):
    import pyseccomp

    number = pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name)
    number = _NUMBERS.get(name, -1) if number == -1 else number
    if number != -1:  # -1: this processor, or this libseccomp, does not know it
        wall.add_rule(action, number, *case)


_NETWORK = {"socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"}
_PROCESSES = {"os.fork", "os.forkpty", "os.exec", "os.posix_spawn", "os.spawn", "os.startfile", "os.system", "subprocess.Popen", "pty.spawn"}


def _guard(event, arguments, own=os.getpid, network=_NETWORK, processes=_PROCESSES, windows=sys.platform == "win32"):
    """The audit hook: it cannot be taken off again, works on every system, and says what seccomp can only number."""
    if event in network and not (windows and "127.0.0.1" in str(arguments)):  # Windows makes its socket pairs over the loopback
        raise PermissionError(NO_NETWORK)
    if event in processes:
        raise PermissionError(NO_PROCESSES)
    if event in ("os.kill", "os.killpg") and arguments[0] != own():
        raise PermissionError(NO_SIGNALS)
