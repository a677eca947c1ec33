#!/bin/bash
# Many names in a directory, and what is left when they go while it is read.
python3 - <<'END'
import os
for root in "/data/many", "/root/many":
    os.mkdir(root)
    for i in range(2000): os.close(os.open(f"{root}/{i:05d}", os.O_CREAT | os.O_WRONLY))
    print(root, len(os.listdir(root)), len(set(os.listdir(root))), os.stat(root).st_nlink)
    with os.scandir(root) as d:
        for n, e in enumerate(d):
            if n % 2: os.unlink(e.path)
    left = os.listdir(root)
    print(n, len(left), len(set(left)))
    for n in left: os.rename(f"{root}/{n}", f"{root}/{n}.renamed")
    left = os.listdir(root)
    print(all(n.endswith(".renamed") for n in left), len(set(left)))
    for n in left: os.unlink(f"{root}/{n}")
    os.rmdir(root)
    name = "ü" * 127
    open(os.path.join(os.path.dirname(root), name), "w").close(); print(name in os.listdir(os.path.dirname(root)))
    try: open(os.path.join(os.path.dirname(root), "x" * 256), "w")
    except OSError as e: print(e.strerror)
END
