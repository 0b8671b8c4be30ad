"""How fast the project is, beside its peers and the machine's limit, in figures that can be redone.

What is measured runs in processes of its own (`serving`), with equal threads and in turn, so that
libraries do not share a thread pool and a busy moment meets all of them. `suite` puts it together;
it and what it imports load no TensorFlow, so that a worker's peak memory is its own.
"""
