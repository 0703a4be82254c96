//! A token in a file (Java's `FileJwtRetriever`), which another program renews.

use std::path::PathBuf;

use super::{Token, TokenSource, claims};
use crate::{
    error::{Error, ErrorKind, Result},
    net::BoxFuture,
    security::{FilePath, Secret},
};

/// Reads tokens from a file that holds a JWT, such as the token of a Kubernetes service account.
/// The file is read again whenever the last token comes near its expiry.
#[derive(Clone, Debug)]
pub struct TokenFile(FilePath);

impl TokenFile {
    /// Uses the file at that path.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(FilePath::new(path))
    }
}

impl TokenSource for TokenFile {
    fn token(&self) -> BoxFuture<'_, Result<Token>> {
        Box::pin(async move { claims::jwt(read(&self.0).await?, &format!("token file {}", self.0)) })
    }
}

/// Returns a file's text without white space around it; reads the file on a blocking thread.
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
