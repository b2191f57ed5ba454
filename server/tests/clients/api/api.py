#!/usr/bin/env python3
"""What the OpenAPI document allows, and more, sent to the admin address by schemathesis.

Every answer must have a status and a body that the document has, and none may be 5xx. Prints one line,
`PASS drop and all other routes` or `FAIL …`, and what failed to standard error.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

SECONDS = 25
CHECKS = ("not_a_server_error,status_code_conformance,content_type_conformance,"
          "response_schema_conformance,unsupported_method")


def main():
    here = Path(__file__).resolve().parent
    command = [
        str(Path(sys.executable).parent / "schemathesis"),
        "--config-file", str(here / "schemathesis.toml"),
        "run", f"{os.environ['MYRIAD_ADMIN_URL']}/openapi.json",
        "--checks", CHECKS, "--phases", "coverage,fuzzing", "--max-time", str(SECONDS),
        "--max-examples", "20", "--generation-deterministic",
        "--continue-on-failure", "--warnings", "off", "--no-color",
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    found = re.search(r"(\d+) generated, (.+)", done.stdout)
    summary = f"{found[1]} requests, {found[2]}" if found else "no summary"
    if done.returncode == 0 and found:
        print(f"PASS drop and all other routes ({summary})")
    else:
        print(f"FAIL drop and all other routes: {summary}")
        print(done.stdout[-20000:], file=sys.stderr)
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
