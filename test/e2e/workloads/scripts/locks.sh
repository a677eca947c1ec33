#!/bin/bash
# Locks of both kinds, between processes, on the root and on a volume.
python3 - <<'END'
import fcntl, os, subprocess, sys, time
def child(code, *args):
    return subprocess.run([sys.executable, "-c", "import fcntl,sys,os\n" + code, *args], capture_output=True, text=True).stdout.strip()
for path in "/data/lock", "/root/lock", "/tmp/lock":
    f = open(path, "w+")
    fcntl.flock(f, fcntl.LOCK_EX)
    print(path, "flock", child("""
try: fcntl.flock(open(sys.argv[1]), fcntl.LOCK_EX | fcntl.LOCK_NB); print("got")
except BlockingIOError: print("busy")""", path))
    fcntl.flock(f, fcntl.LOCK_UN)
    fcntl.lockf(f, fcntl.LOCK_EX, 10, 5)
    print(path, "fcntl", child("""
f = open(sys.argv[1], "r+")
for start in 0, 7, 15:
    try: fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 5 if start else 2, start); print("got", end=" ")
    except OSError as e: print(e.errno, end=" ")""", path))
    f.close()
    print(path, "after", child("""
fcntl.lockf(open(sys.argv[1], "r+"), fcntl.LOCK_EX | fcntl.LOCK_NB); print("got")""", path))
    p = subprocess.Popen([sys.executable, "-c", "import fcntl,sys,time\nf=open(sys.argv[1],'r+'); fcntl.flock(f, fcntl.LOCK_EX); print('held', flush=True); time.sleep(1000)", path], stdout=subprocess.PIPE, text=True)
    p.stdout.readline(); p.kill(); p.wait()
    fcntl.flock(open(path), fcntl.LOCK_EX | fcntl.LOCK_NB); print(path, "free when its owner is killed")
END
