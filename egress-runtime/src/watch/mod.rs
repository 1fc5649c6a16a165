//! Tells when a mounted file has other content.
//!
//! A file of a `ConfigMap` or `Secret` volume is never written: the kubelet
//! makes a new directory and renames a symbolic link (`..data`) over the old
//! one, so that a watch on the file itself would go on watching what nobody
//! reads any more. What is watched is therefore every directory in which a
//! name is looked up on the way to the file, links included. That also notices
//! a file that comes into being later, an editor that renames, and a directory
//! that is replaced.
//!
//! A volume mounted with `subPath` is never updated by the kubelet, so there
//! is nothing to notice.

mod directories;
mod file_watch;
mod fingerprint;
mod inotify;
mod lookup;

pub use file_watch::FileWatch;
