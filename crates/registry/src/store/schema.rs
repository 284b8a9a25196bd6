//! The tables of registry.db; steps are only ever appended.

/// Steps of the database's layout.
pub(crate) const MIGRATIONS: &[&str] = &["
CREATE TABLE repos (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
-- A blob's bytes. Nothing takes it away before its lease (seconds since the epoch) is over.
CREATE TABLE blobs (digest TEXT PRIMARY KEY, generation INTEGER NOT NULL, size INTEGER NOT NULL, lease INTEGER NOT NULL) STRICT;
-- Which repository a blob was uploaded to or mounted into.
CREATE TABLE repo_blobs (
    repo INTEGER NOT NULL REFERENCES repos(id) ON DELETE CASCADE,
    digest TEXT NOT NULL REFERENCES blobs(digest) ON DELETE CASCADE,
    PRIMARY KEY (repo, digest)) STRICT, WITHOUT ROWID;
CREATE INDEX repo_blobs_by_digest ON repo_blobs(digest);
CREATE TABLE manifests (
    id INTEGER PRIMARY KEY,
    repo INTEGER NOT NULL REFERENCES repos(id) ON DELETE CASCADE,
    digest TEXT NOT NULL,
    media_type TEXT NOT NULL,
    artifact_type TEXT NOT NULL,
    subject TEXT,
    annotations TEXT,
    body BLOB NOT NULL,
    pushed INTEGER NOT NULL,
    UNIQUE (repo, digest)) STRICT;
CREATE INDEX manifests_by_subject ON manifests(repo, subject) WHERE subject IS NOT NULL;
-- What a manifest needs: blobs of its repository that collection must keep.
CREATE TABLE manifest_blobs (
    manifest INTEGER NOT NULL REFERENCES manifests(id) ON DELETE CASCADE,
    digest TEXT NOT NULL,
    PRIMARY KEY (manifest, digest)) STRICT, WITHOUT ROWID;
CREATE INDEX manifest_blobs_by_digest ON manifest_blobs(digest);
CREATE TABLE tags (
    repo INTEGER NOT NULL REFERENCES repos(id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    manifest INTEGER NOT NULL REFERENCES manifests(id) ON DELETE CASCADE,
    PRIMARY KEY (repo, name)) STRICT, WITHOUT ROWID;
CREATE INDEX tags_by_manifest ON tags(manifest);
CREATE TABLE users (name TEXT PRIMARY KEY, hash TEXT NOT NULL, role TEXT NOT NULL, changed INTEGER NOT NULL) STRICT;
CREATE TABLE generations (last INTEGER NOT NULL) STRICT;
INSERT INTO generations VALUES (0);
"];
