//! A token in a file (Java's `FileJwtRetriever`), which somebody else renews.

use std::path::PathBuf;

use super::{Token, TokenSource, claims};
use crate::{
    error::{Error, ErrorKind, Result},
    net::BoxFuture,
    security::{FilePath, Secret},
};

/// Tokens out of a file that holds a JWT, such as a Kubernetes service account's. It is read anew
/// whenever the token that it held comes near its end.
#[derive(Clone, Debug)]
pub struct TokenFile(FilePath);

impl TokenFile {
    /// The file at that path.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(FilePath::new(path))
    }
}

impl TokenSource for TokenFile {
    fn token(&self) -> BoxFuture<'_, Result<Token>> {
        Box::pin(async move { claims::jwt(read(&self.0).await?, &format!("token file {}", self.0)) })
    }
}

/// A file's text without white space around it, read where it blocks nobody.
pub(crate) async fn read(path: &FilePath) -> Result<Secret> {
    if let Some(mistake) = path.mistaken() {
        return Err(Error::new(ErrorKind::Authentication, format!("file: {mistake}")));
    }
    let (path, shown) = (path.as_path().to_owned(), path.to_string());
    let read = tokio::task::spawn_blocking(move || std::fs::read(path));
    let failed = |error: std::io::Error| Error::new(ErrorKind::Authentication, format!("file {shown}: {error}"));
    let bytes = read.await.map_err(std::io::Error::other).and_then(|read| read).map_err(failed)?;
    let bytes = zeroize::Zeroizing::new(bytes);
    let trimmed = bytes.trim_ascii();
    if trimmed.is_empty() {
        return Err(Error::new(ErrorKind::Authentication, format!("file {shown}: it is empty")));
    }
    Ok(trimmed.into())
}
