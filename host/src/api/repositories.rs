//! Handlers of `/v1/repositories`: thin, no logic.

use axum::Json;
use axum::extract::State;
use ostler_protocol::api::{RepositoryList, RepositoryView};

use super::extract::{PathText, QueryOf};
use super::page::{self, List, PageQuery};
use super::{ApiFailure, ApiState, validate};

pub(super) async fn list(
    State(state): State<ApiState>,
    QueryOf(query): QueryOf<PageQuery>,
) -> Result<Json<RepositoryList>, ApiFailure> {
    let limit = page::limit(query.limit)?;
    let after = page::after(List::Repositories, query.cursor.as_deref())?;
    let found = state.repositories.list(after.as_deref(), limit + 1).await?;
    let (repositories, next_cursor) = page::cut(List::Repositories, limit, found, |found| found.name.clone());
    Ok(Json(RepositoryList { repositories, next_cursor }))
}

pub(super) async fn show(
    State(state): State<ApiState>,
    PathText(name): PathText<String>,
) -> Result<Json<RepositoryView>, ApiFailure> {
    validate::repository(&name)?;
    Ok(Json(state.repositories.get(&name).await?))
}

pub(super) async fn create(
    State(state): State<ApiState>,
    PathText(name): PathText<String>,
) -> Result<Json<RepositoryView>, ApiFailure> {
    validate::repository(&name)?;
    Ok(Json(state.repositories.create(&name).await?))
}
