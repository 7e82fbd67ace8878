//! One virtual machine, from its start to its verdict. Knows QEMU, its monitor and its serial lines; never what the tests are.
