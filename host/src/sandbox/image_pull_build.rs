//! Pulls and builds images.

use std::time::Duration;

use bollard::errors::Error as Bollard;
use bollard::query_parameters::{BuildImageOptionsBuilder, CreateImageOptionsBuilder};
use futures_util::{Stream, StreamExt};

use super::{Engine, EngineError, with_causes};
use crate::policy::image_verdict::with_tag;

/// The host gives up a pull or a build that sends nothing for this long.
const SILENCE: Duration = Duration::from_secs(120);

#[derive(Debug, Clone)]
pub struct Recipe {
    /// The name of the built image.
    pub name: String,
    /// The directory with the Dockerfile, as a tar archive.
    pub archive: Vec<u8>,
    /// The base image: the Dockerfile's `BASE_IMAGE`.
    pub base: String,
    pub label: (String, String),
}

impl Engine {
    /// Pulls an image, and calls `tell` with each step. The engine uses only its own registry credentials.
    ///
    /// # Errors
    /// [`EngineError::NotFetched`] with the registry's message, or an engine that is away.
    pub async fn pull(
        &self,
        name: &str,
        within: Duration,
        mut tell: impl FnMut(&str),
    ) -> Result<(), EngineError> {
        let options = CreateImageOptionsBuilder::default().from_image(&with_tag(name)).build();
        let steps = self.docker()?.create_image(Some(options), None, None);
        let steps = steps.map(|step| {
            step.map(|step| {
                let at = step.progress_detail.and_then(|p| Some((p.current?, p.total.filter(|t| *t > 0)?)));
                let percent =
                    at.map(|(current, total)| format!(" {} %", (current * 100 / total).clamp(0, 100)));
                let layer = step.id.map(|id| format!("{id}: ")).unwrap_or_default();
                format!("{layer}{}{}", step.status.unwrap_or_default(), percent.unwrap_or_default())
            })
        });
        self.followed(name, steps, within, &mut tell).await
    }

    /// Builds an image with the classic builder, which every engine since 20.10 has, and calls `tell` with each line.
    ///
    /// # Errors
    /// As [`Engine::pull`].
    pub async fn build(
        &self,
        recipe: Recipe,
        within: Duration,
        mut tell: impl FnMut(&str),
    ) -> Result<(), EngineError> {
        let arguments = [("BASE_IMAGE".to_owned(), recipe.base)].into();
        let labels = [recipe.label].into();
        let options = BuildImageOptionsBuilder::default()
            .t(&recipe.name)
            .buildargs(&arguments)
            .labels(&labels)
            .rm(true)
            .forcerm(true)
            .build();
        let archive = bollard::body_full(recipe.archive.into());
        let lines = self.docker()?.build_image(options, None, Some(archive));
        let lines = lines.map(|line| line.map(|line| line.stream.or(line.status).unwrap_or_default()));
        self.followed(&recipe.name, lines, within, &mut tell).await
    }

    /// Reads a stream of steps to its end. The engine stops its work when this drops the connection.
    async fn followed(
        &self,
        image: &str,
        mut steps: impl Stream<Item = Result<String, Bollard>> + Unpin,
        within: Duration,
        tell: &mut impl FnMut(&str),
    ) -> Result<(), EngineError> {
        let failed = |why: String| EngineError::NotFetched { image: image.to_owned(), why };
        let all = async {
            loop {
                match tokio::time::timeout(SILENCE, steps.next()).await {
                    Err(_) => return Err(failed(format!("nothing came for {} s", SILENCE.as_secs()))),
                    Ok(None) => return Ok(()),
                    Ok(Some(Ok(step))) => tell(step.trim_end()),
                    Ok(Some(Err(Bollard::DockerResponseServerError { message, .. }))) => {
                        return Err(failed(message));
                    }
                    Ok(Some(Err(Bollard::DockerStreamError { error }))) => return Err(failed(error)),
                    Ok(Some(Err(e))) => {
                        return Err(EngineError::Away { socket: self.socket.clone(), why: with_causes(&e) });
                    }
                }
            }
        };
        let seconds = within.as_secs();
        let ended = tokio::time::timeout(within, all).await;
        ended.unwrap_or_else(|_| Err(failed(format!("it was not done within {seconds} s"))))
    }
}
