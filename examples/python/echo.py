# An agent in Python that says what it hears. Needs the package websockets
# (Debian: apt-get install python3-websockets). Run: python3 echo.py [PORT]
import asyncio, json, sys
import websockets


async def call(ws):
    start = json.loads(await ws.recv())  # the first message introduces the call
    print("call", start["session_id"], start["call"], flush=True)
    async for message in ws:
        if isinstance(message, bytes):  # 20 ms of 16-bit PCM from the caller
            await ws.send(message)  # any length, any time: the bridge paces it
        else:
            print(message, flush=True)  # dtmf, mark, cleared, playback, stop, ...


async def main():
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 9100
    async with websockets.serve(call, "127.0.0.1", port, subprotocols=["voicebridge.v1"], compression=None):
        print(f"waiting for the bridge on ws://127.0.0.1:{port}/", flush=True)
        await asyncio.Future()


asyncio.run(main())
