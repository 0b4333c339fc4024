"""The kernel that a job's notebook runs in: the very interpreter that runs the job, and no longer than the job."""

import sys

from artifact.processes import end_with_parent


def manager():
    """The class of a kernel manager for this interpreter, whatever kernels named python3 the machine has."""
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpec

    class ThisInterpreter(AsyncKernelManager):
        @property
        def kernel_spec(self):
            return KernelSpec(argv=[sys.executable, "-m", "artifact.kernel", "-f", "{connection_file}"], display_name="Python 3",
                              language="python")

    return ThisInterpreter


if __name__ == "__main__":
    end_with_parent()
    from ipykernel import kernelapp
    kernelapp.launch_new_instance()
