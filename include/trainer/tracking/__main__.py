"""`python -m include.trainer.tracking <home>/runs/<model>`: send MLflow the records that wait; exit 1 where some still do."""

import sys
from pathlib import Path

from include.trainer.tracking.tracker import send_waiting

if __name__ == "__main__":
    sys.exit(bool(send_waiting(Path(sys.argv[1]))))
