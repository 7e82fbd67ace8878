//! The guest's file system: static programs, modules, the plan. Knows cpio; never QEMU.
