'use strict'
// The first program: `first.js [ENDPOINTS]`.
const { RawClient } = require('ferrite-client')

async function main(endpoints = '127.0.0.1:2379') {
  const client = await RawClient.connect(endpoints, { deadline: 10_000 })
  await client.put('greeting', Buffer.from('hello'))
  console.log((await client.get('greeting')).toString())
  for await (const [key, value] of client.scan({ start: 'a', end: 'z' })) console.log(key, value)
  client.close()
}

main(process.argv[2])
