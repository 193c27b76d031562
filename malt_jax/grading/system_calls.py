"""The filter of system calls of a sandbox, as the program of the kernel's packet filter (seccomp)
that bubblewrap loads from a descriptor.

It refuses what a program that computes has no use for and what has opened kernels before: new
processes, sockets, namespaces and mounts, tracing, keys, asynchronous rings, kernel modules. The
calls' numbers are those of the kernel's tables for x86-64 and for the generic table of AArch64.
"""

import errno
import platform
import struct

# (x86-64, AArch64); -1 where a table has none.
_PROCESSES = {
    "clone": (56, 220),
    "fork": (57, -1),
    "vfork": (58, -1),
    "clone3": (435, 435),
}
_REFUSED = {
    "socket": (41, 198),
    "socketpair": (53, 199),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "mount_setattr": (442, 442),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "memfd_create": (319, 279),
    "mq_open": (240, 180),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "kexec_load": (246, 104),
    "open_by_handle_at": (304, 265),
    "personality": (135, 92),
}
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}

_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _KILL, _FAIL = 0x7FFF0000, 0x80000000, 0x00050000
_X32 = 0x40000000  # x86-64's second set of numbers for the same calls


def machine() -> str:
    """The processor's name, as the tables know it. Raises OSError for one that they do not."""
    name = platform.machine()
    if name not in _ARCHITECTURES:
        raise OSError(
            f"no table of system calls for {name!r}, only for {', '.join(_ARCHITECTURES)}"
        )
    return name


def compiled(*, processes: bool) -> bytes:
    """The filter for this machine: `struct sock_filter[]`, 8 bytes an instruction. A call that it
    refuses fails with EPERM, or ENOSYS for clone3, whose callers then try clone. `processes` says
    whether new ones may be made. Raises OSError as `machine` does."""
    column, architecture = _ARCHITECTURES[machine()]
    refused = {} if processes else dict(_PROCESSES)
    refused |= _REFUSED
    program = [
        (_LOAD, 0, 0, 4),  # seccomp_data.arch
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0),  # seccomp_data.nr
    ]
    if column == 0:
        program += [(_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _KILL)]
    for name, numbers in refused.items():
        if numbers[column] < 0:
            continue
        error = errno.ENOSYS if name == "clone3" else errno.EPERM
        program += [(_EQUAL, 0, 1, numbers[column]), (_RETURN, 0, 0, _FAIL | error)]
    program.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
