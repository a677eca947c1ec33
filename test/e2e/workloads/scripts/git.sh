#!/bin/bash
# A history with merges, packed, cloned and checked.
set -e
export GIT_AUTHOR_DATE='2026-01-01T00:00:00Z' GIT_COMMITTER_DATE='2026-01-01T00:00:00Z'
git config --global user.name n && git config --global user.email e@x && git config --global init.defaultBranch main && git config --global advice.detachedHead false
mkdir /data/repo && cd /data/repo && git init -q
for i in $(seq 20); do echo "line $i" >>file$((i % 5)); git add -A; git commit -qm "commit $i"; done
git checkout -qb side HEAD~5 && echo side >side && ln -s side link && chmod +x side && git add -A && git commit -qm side
git checkout -q main && git merge -q -m merge side
git gc -q --prune=now && git fsck --strict
git rev-parse HEAD
git clone -q /data/repo /root/clone && cd /root/clone && git rev-parse HEAD && git status --porcelain | wc -l
git worktree add -q /root/tree HEAD~3 && echo /root/tree/*
cd /data/repo && git stash list | wc -l && touch file1 && git status --porcelain | wc -l
