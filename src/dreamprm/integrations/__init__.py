"""One file per host: what other libraries call, on top of the public names of this one."""
