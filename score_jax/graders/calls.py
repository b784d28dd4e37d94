"""Which system calls a program may not make: those that no limit reaches.

Limits bind files, processes and address space. Some calls have memory that
none of them counts, some reach what no namespace shuts off, and some make new
namespaces, in which a program may mount file systems without a limit. They
fail as forbidden; the filter is the kernel's (seccomp), for good, and for all
that the process starts.

Standard library only: this file runs inside the sandbox.
"""

import errno
import os
import struct

# Name: its number on x86_64 and on aarch64.
FORBIDDEN = {
  # Memory that belongs to no process.
  'memfd_create': (319, 279),
  'memfd_secret': (447, 447),
  'shmget': (29, 194),
  'msgget': (68, 186),
  'semget': (64, 190),
  'mq_open': (240, 180),
  'io_uring_setup': (425, 425),
  'userfaultfd': (323, 282),
  'vmsplice': (278, 75),
  # What the kernel keeps for a user, and the kernel itself.
  'add_key': (248, 217),
  'request_key': (249, 218),
  'keyctl': (250, 219),
  'bpf': (321, 280),
  'perf_event_open': (298, 241),
  'fanotify_init': (300, 262),
  'quotactl': (179, 60),
  'syslog': (103, 116),
  # Other processes.
  'ptrace': (101, 117),
  'process_vm_readv': (310, 270),
  'process_vm_writev': (311, 271),
  'pidfd_getfd': (438, 438),
  'kcmp': (312, 272),
  # New namespaces and what is mounted there.
  'unshare': (272, 97),
  'setns': (308, 268),
  'mount': (165, 40),
  'umount2': (166, 39),
  'pivot_root': (155, 41),
  'chroot': (161, 51),
  'open_tree': (428, 428),
  'move_mount': (429, 429),
  'fsopen': (430, 430),
  'fspick': (433, 433),
  'mount_setattr': (442, 442),
  'open_by_handle_at': (304, 265),
}
# Of these, by architecture: what the kernel calls it, then the numbers of
# clone, clone3 and socket.
_MACHINES = {
  'x86_64': (0xC000003E, 56, 435, 41),
  'aarch64': (0xC00000B7, 220, 435, 198),
}
# Local ones and those of the network namespace, which is empty; others, as
# those to the host of a virtual machine, belong to no namespace.
_FAMILIES = (1, 2, 10, 16)  # UNIX, INET, INET6, NETLINK.
_NEW_USER = 0x10000000  # A flag of clone.
_X32 = 0x40000000  # In the numbers of another way to call on x86_64.

# Where the kernel puts what it asks the filter about.
_NUMBER, _MACHINE, _ARGUMENT = 0, 4, 16
# Instructions of the filter, and what it may return.
_LOAD, _EQUAL, _ATLEAST, _BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _FAIL = 0x7FFF0000, 0x00050000
# Of the call that sets it: a filter, which need not slow the process down.
_SECCOMP = {'x86_64': 317, 'aarch64': 277}
_SET_FILTER, _FAST = 1, 4
_NO_NEW_PRIVILEGES = 38


def machine() -> str | None:
  """Returns which machine this is, or None if it has no filter here."""
  name = os.uname().machine
  return name if name in _MACHINES else None


def restrict() -> bool:
  """Forbids the calls to this process and all that it starts, for good.

  Returns:
    False where the kernel has no such filter, or the machine is another.
  """
  name = machine()
  if name is None:
    return False
  try:
    import ctypes
  except ImportError:  # The probe of the sandbox finds what is missing.
    return False
  code = program(name)
  buffer = ctypes.create_string_buffer(code, len(code))
  filter_ = struct.pack('HxxxxxxQ', len(code) // 8, ctypes.addressof(buffer))
  libc = ctypes.CDLL(None)
  libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
  return not libc.syscall(_SECCOMP[name], _SET_FILTER, _FAST, filter_)


def program(name: str) -> bytes:
  """Returns the filter as the kernel reads it, eight bytes per instruction.

  Args:
    name: of the machine, 'x86_64' or 'aarch64'.
  """
  code, clone, clone3, socket = _MACHINES[name]
  column = list(_MACHINES).index(name)
  refuse, absent = _FAIL | errno.EPERM, _FAIL | errno.ENOSYS
  # (instruction, operand, how many to skip if so, how many if not).
  lines = [
    (_LOAD, _MACHINE, 0, 0),
    (_EQUAL, code, 1, 0),
    (_RETURN, refuse, 0, 0),
    (_LOAD, _NUMBER, 0, 0),
    (_ATLEAST, _X32, 0, 1),
    (_RETURN, refuse, 0, 0),
    # Its flags lie where no filter sees them; libraries then use clone.
    (_EQUAL, clone3, 0, 1),
    (_RETURN, absent, 0, 0),
  ]
  for numbers in FORBIDDEN.values():
    lines += [(_EQUAL, numbers[column], 0, 1), (_RETURN, refuse, 0, 0)]
  lines += [
    (_EQUAL, clone, 0, 4),
    (_LOAD, _ARGUMENT, 0, 0),
    (_BITS, _NEW_USER, 0, 1),
    (_RETURN, refuse, 0, 0),
    (_RETURN, _ALLOW, 0, 0),
    (_EQUAL, socket, 0, 2 * len(_FAMILIES) + 2),
    (_LOAD, _ARGUMENT, 0, 0),
  ]
  for family in _FAMILIES:
    lines += [(_EQUAL, family, 0, 1), (_RETURN, _ALLOW, 0, 0)]
  lines += [(_RETURN, refuse, 0, 0), (_RETURN, _ALLOW, 0, 0)]
  return b''.join(
    struct.pack('HBBI', instruction, yes, no, operand)
    for instruction, operand, yes, no in lines
  )
