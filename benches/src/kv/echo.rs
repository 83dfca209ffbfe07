//! A bare tonic server of the same messages: what any server of this protocol costs on this machine before it does anything.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use bytes::Bytes;
use proto::kvrpcpb::{RawGetRequest, RawGetResponse, RawPutRequest, RawPutResponse};
use proto::tikvpb::batch_commands_request::request::Cmd as Ask;
use proto::tikvpb::batch_commands_response::{Response as Answer, response::Cmd as Told};
use proto::tikvpb::tikv_server::{Tikv, TikvServer};
use proto::tikvpb::{BatchCommandsRequest, BatchCommandsResponse};
use tokio_stream::StreamExt;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status, Streaming};

#[derive(clap::Args)]
pub struct Args {
    #[arg(long)]
    addr: SocketAddr,
    /// Length of the value that every get answers.
    #[arg(long)]
    value_bytes: usize,
}

pub fn serve(args: &Args) -> Result<()> {
    let echo = Echo {
        value: Bytes::from(vec![b'v'; args.value_bytes]),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let server = tonic::transport::Server::builder()
        .tcp_nodelay(true)
        .add_service(TikvServer::new(echo));
    runtime.block_on(server.serve(args.addr)).context("serve the echo")
}

struct Echo {
    value: Bytes,
}

impl Echo {
    fn get(&self) -> RawGetResponse {
        RawGetResponse {
            value: self.value.clone(),
            ..RawGetResponse::default()
        }
    }
}

#[tonic::async_trait]
impl Tikv for Echo {
    async fn raw_get(&self, _: Request<RawGetRequest>) -> Result<Response<RawGetResponse>, Status> {
        Ok(Response::new(self.get()))
    }

    async fn raw_put(&self, _: Request<RawPutRequest>) -> Result<Response<RawPutResponse>, Status> {
        Ok(Response::new(RawPutResponse::default()))
    }

    async fn batch_commands(
        &self,
        request: Request<Streaming<BatchCommandsRequest>>,
    ) -> Result<Response<BoxStream<BatchCommandsResponse>>, Status> {
        let get = self.get();
        let answer = move |ask: &Option<Ask>| match ask {
            Some(Ask::RawGet(_)) => Some(Told::RawGet(get.clone())),
            Some(Ask::RawPut(_)) => Some(Told::RawPut(RawPutResponse::default())),
            _ => None,
        };
        let answers = request.into_inner().map(move |batch| {
            let batch = batch?;
            let responses = batch
                .requests
                .iter()
                .map(|request| Answer {
                    cmd: answer(&request.cmd),
                })
                .collect();
            Ok(BatchCommandsResponse {
                responses,
                request_ids: batch.request_ids,
                ..BatchCommandsResponse::default()
            })
        });
        Ok(Response::new(Box::pin(answers)))
    }
}
