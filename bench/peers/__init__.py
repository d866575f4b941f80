"""What others have: the same route and the same empty task, each as its documentation has it.

Each module runs where only its own packages are, and reads the address of its Redis from
`PEER_REDIS`.
"""
