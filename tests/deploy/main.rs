//! What `deploy/` says, held against the binary and against those who read its files: Kubernetes' schemas, the Compose
//! specification, a linter of Dockerfiles.
//!
//! | module | what it holds against what |
//! |---|---|
//! | [`accepted`] | rendered objects against Kubernetes' schemas, and each other: selectors, references, ports |
//! | [`pods`] | pods against the binary, and against what every pod of Herald must be |
//! | [`compose`] | the Compose file against its specification, the binary and the files it mounts |
//! | [`image`] | the Dockerfile against a linter, the binary and the workspace |
//! | [`monitoring`] | rules, dashboards and scrape settings against each other |
//! | [`names`] | every setting, command, flag and metric that is named anywhere against the binary |

mod accepted;
mod compose;
mod image;
mod monitoring;
mod names;
mod overlay;
mod pods;
mod tools;
