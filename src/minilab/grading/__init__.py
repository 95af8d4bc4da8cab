"""Labs: one instructor notebook becomes what students get, what instructors get, an autograder, and grades.

- `assign` makes the students' notebook with `otter assign`, so that it carries all it needs: a Colab badge, a line
  that installs what is missing, and the visible tests. Beside it lie an instructors' version, an autograder and a
  source for nbgrader.
- `grade` holds a folder of submissions against the lab. Each runs in a jail of its own (`jail.py`), with no network, no
  files and no tests; the tests run in a judge (`judge.py`) that calls what the student wrote by message (`wire.py`). So
  one that crashes, hangs or cheats costs only its own marks.
"""

from minilab.grading.student import assign
from minilab.grading.submissions import grade

__all__ = ["assign", "grade"]
