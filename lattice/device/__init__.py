"""Where arrays lie and how they come in and go out: DLPack, memory, copies, matrix products of the host and of a GPU."""
