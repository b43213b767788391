"""Where arrays lie, and how they come in and go out: DLPack, memory, copies, matrix products of a host and a GPU."""
