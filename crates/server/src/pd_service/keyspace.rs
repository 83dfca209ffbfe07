//! Keyspaces: for now the default one alone, which API V2 clients ask for at start.

use proto::keyspacepb::keyspace_server::Keyspace;
use proto::keyspacepb::{
    GetAllKeyspacesRequest, GetAllKeyspacesResponse, KeyspaceMeta, KeyspaceState, LoadKeyspaceRequest, LoadKeyspaceResponse,
};
use proto::pdpb::{self, ErrorType};
use tonic::{Response, Status};

use super::PdService;

const DEFAULT_NAME: &str = "DEFAULT";
const DEFAULT_ID: u32 = 0;

fn default_keyspace() -> KeyspaceMeta {
    KeyspaceMeta {
        id: DEFAULT_ID,
        name: DEFAULT_NAME.to_owned(),
        state: KeyspaceState::Enabled as i32,
        ..KeyspaceMeta::default()
    }
}

#[tonic::async_trait]
impl Keyspace for PdService {
    async fn load_keyspace(
        &self,
        request: tonic::Request<LoadKeyspaceRequest>,
    ) -> Result<Response<LoadKeyspaceResponse>, Status> {
        let LoadKeyspaceRequest { header, name } = request.into_inner();
        self.check_cluster(header)?;
        let keyspace = Some(default_keyspace()).filter(|keyspace| keyspace.name == name);
        let error = keyspace.is_none().then(|| pdpb::Error {
            r#type: ErrorType::EntryNotFound as i32,
            // TiDB looks for the kind in the text too.
            message: format!("ENTRY_NOT_FOUND: keyspace `{name}` does not exist"),
        });
        Ok(Response::new(LoadKeyspaceResponse {
            header: Some(self.header(error)),
            keyspace,
        }))
    }

    async fn get_all_keyspaces(
        &self,
        request: tonic::Request<GetAllKeyspacesRequest>,
    ) -> Result<Response<GetAllKeyspacesResponse>, Status> {
        let GetAllKeyspacesRequest { header, start_id, .. } = request.into_inner();
        self.check_cluster(header)?;
        let keyspaces = Some(default_keyspace())
            .filter(|keyspace| start_id <= keyspace.id)
            .into_iter()
            .collect();
        Ok(Response::new(GetAllKeyspacesResponse {
            header: Some(self.header(None)),
            keyspaces,
        }))
    }
}
