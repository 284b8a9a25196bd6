//! The tables of `registry.db`. Each entry leads one version further; entries are never changed once released.

/// All migrations.
pub(crate) const MIGRATIONS: &[&str] = &[
    "
CREATE TABLE repo (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE
) STRICT;
-- object: the file below blobs/, never used again once it is gone.
CREATE TABLE blob (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    digest TEXT NOT NULL UNIQUE,
    size INTEGER NOT NULL,
    object TEXT NOT NULL UNIQUE,
    lease_until INTEGER NOT NULL
) STRICT;
CREATE INDEX blob_lease ON blob (lease_until);
CREATE TABLE repo_blob (
    repo INTEGER NOT NULL REFERENCES repo (id),
    blob INTEGER NOT NULL REFERENCES blob (id) ON DELETE CASCADE,
    PRIMARY KEY (repo, blob)
) STRICT, WITHOUT ROWID;
CREATE INDEX repo_blob_blob ON repo_blob (blob);
CREATE TABLE manifest (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    repo INTEGER NOT NULL REFERENCES repo (id),
    digest TEXT NOT NULL,
    media_type TEXT NOT NULL,
    artifact_type TEXT,
    subject TEXT,
    annotations TEXT NOT NULL,
    body BLOB NOT NULL,
    pushed_by TEXT NOT NULL,
    pushed_at INTEGER NOT NULL,
    UNIQUE (repo, digest)
) STRICT;
CREATE INDEX manifest_subject ON manifest (repo, subject, digest) WHERE subject IS NOT NULL;
CREATE TABLE manifest_blob (
    manifest INTEGER NOT NULL REFERENCES manifest (id) ON DELETE CASCADE,
    blob INTEGER NOT NULL REFERENCES blob (id),
    PRIMARY KEY (manifest, blob)
) STRICT, WITHOUT ROWID;
CREATE INDEX manifest_blob_blob ON manifest_blob (blob);
CREATE TABLE manifest_child (
    manifest INTEGER NOT NULL REFERENCES manifest (id) ON DELETE CASCADE,
    digest TEXT NOT NULL,
    PRIMARY KEY (manifest, digest)
) STRICT, WITHOUT ROWID;
CREATE TABLE tag (
    repo INTEGER NOT NULL REFERENCES repo (id),
    name TEXT NOT NULL,
    manifest INTEGER NOT NULL REFERENCES manifest (id) ON DELETE CASCADE,
    moved_at INTEGER NOT NULL,
    PRIMARY KEY (repo, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX tag_manifest ON tag (manifest);
CREATE TABLE upload (
    id TEXT PRIMARY KEY,
    repo INTEGER NOT NULL REFERENCES repo (id),
    algorithm TEXT NOT NULL,
    owner TEXT NOT NULL,
    started_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX upload_owner ON upload (owner);
-- version: another one for each password, so that tokens of an earlier one end.
CREATE TABLE user (
    name TEXT PRIMARY KEY,
    hash TEXT NOT NULL,
    role TEXT NOT NULL,
    version TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
-- Counts changes of users: a running server looks whether it moved.
CREATE TABLE change (
    subject TEXT PRIMARY KEY,
    count INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO change VALUES ('user', 0);
CREATE TRIGGER user_added AFTER INSERT ON user BEGIN UPDATE change SET count = count + 1 WHERE subject = 'user'; END;
CREATE TRIGGER user_changed AFTER UPDATE ON user BEGIN UPDATE change SET count = count + 1 WHERE subject = 'user'; END;
CREATE TRIGGER user_removed AFTER DELETE ON user BEGIN UPDATE change SET count = count + 1 WHERE subject = 'user'; END;
",
    "
-- Blobs that a manifest names and that were not in its repository when it came; those that come later are kept for it.
CREATE TABLE manifest_wanted (
    digest TEXT NOT NULL,
    manifest INTEGER NOT NULL REFERENCES manifest (id) ON DELETE CASCADE,
    PRIMARY KEY (digest, manifest)
) STRICT, WITHOUT ROWID;
CREATE INDEX manifest_wanted_manifest ON manifest_wanted (manifest);
",
];
