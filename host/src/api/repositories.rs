//! Handlers of `/v1/repositories`: thin, no logic.

use axum::Json;
use axum::extract::State;
use ostler_protocol::api::{RepositoryList, RepositoryView};
use ostler_protocol::openapi::RepositoryName;

use super::document::{examples, failures};
use super::extract::{PathText, QueryOf};
use super::page::{self, List, PageQuery};
use super::{ApiFailure, ApiState, validate};

#[utoipa::path(
    get,
    path = "/v1/repositories",
    operation_id = "listRepositories",
    tag = "repositories",
    summary = "List repositories",
    description = "The repositories of the built-in forge, by name.",
    params(
        ("limit" = Option<usize>, Query, minimum = 1, maximum = 200, description = "Most items in the page; 50 where it is absent."),
        ("cursor" = Option<String>, Query, description = "Where the page begins: `next_cursor` of the page before.")
    ),
    responses(
        (status = 200, description = "A page.", body = RepositoryList, example = json!(examples::repositories())),
        failures::Listing
    )
)]
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

#[utoipa::path(
    get,
    path = "/v1/repositories/{repository}",
    operation_id = "getRepository",
    tag = "repositories",
    summary = "Find a repository",
    description = "One repository by its name.",
    params(("repository" = RepositoryName, Path, description = "Which repository.", example = "demo")),
    responses(
        (status = 200, description = "The repository.", body = RepositoryView, example = json!(examples::repository())),
        failures::Finding
    )
)]
pub(super) async fn show(
    State(state): State<ApiState>,
    PathText(name): PathText<String>,
) -> Result<Json<RepositoryView>, ApiFailure> {
    validate::repository(&name)?;
    Ok(Json(state.repositories.get(&name).await?))
}

#[utoipa::path(
    put,
    path = "/v1/repositories/{repository}",
    operation_id = "putRepository",
    tag = "repositories",
    summary = "Make a repository, or find it",
    description = "Makes an empty repository on the built-in forge where there is none of that name; answers it either way. It \
                   takes no body. Fill it with `git push` to `clone_url`, with the token as the password.",
    params(("repository" = RepositoryName, Path, description = "Which repository.", example = "demo")),
    responses(
        (status = 200, description = "The repository.", body = RepositoryView, example = json!(examples::repository())),
        failures::Listing
    )
)]
pub(super) async fn create(
    State(state): State<ApiState>,
    PathText(name): PathText<String>,
) -> Result<Json<RepositoryView>, ApiFailure> {
    validate::repository(&name)?;
    Ok(Json(state.repositories.create(&name).await?))
}
