"""Labs: one instructor notebook becomes a student notebook, an autograder, and grades.

Otter-Grader does the grading; this package adds what a course needs around it.

- `assign` runs `otter assign` and makes the student notebook carry all it needs: a Colab badge, a line that
  installs what is missing, and the visible tests, so that the one file works wherever it is opened.
- `grade` drives `otter run` over a folder of submissions. Each gets its own process, folder and time limit
  (Otter's own `otter grade` needs a Docker engine), so one that crashes or hangs costs only its own marks.

The processes keep accidents apart. They are no sandbox: grade work that you do not trust inside a container.
"""

from minilab.grading.student import assign
from minilab.grading.submissions import grade

__all__ = ["assign", "grade"]
