"""One measurement of a Python peer of `bench codec`: compresses and decompresses chunks of a file, and says how long.

Every line of input is one order: {"peer", "path", "chunkBytes", "elementBytes", "dtype"}. The answer has the bytes that
the chunks take compressed, and the processor time of compressing and of decompressing all of them, in seconds.
The first line of output says which peers there are, and why not the others.

Invariants
  1. Each chunk is compressed by itself with one thread, as the store does.
  2. What comes back is compared with what went in, outside the time.
  3. A peer gets a copy of its own (ZipNN works in place).
"""

import importlib.metadata
import json
import sys
import time
import warnings

warnings.filterwarnings("ignore")


def zstd_of(level):
    import zstandard

    compressor = zstandard.ZstdCompressor(level=level)
    decompressor = zstandard.ZstdDecompressor()
    return (lambda chunk, order: compressor.compress(chunk), lambda packed, order: decompressor.decompress(packed))


def lz4_peer():
    import lz4.block

    return (lambda chunk, order: lz4.block.compress(chunk), lambda packed, order: lz4.block.decompress(packed))


def blosc2_peer():
    import blosc2

    blosc2.set_nthreads(1)

    def compress(chunk, order):
        return blosc2.compress(
            chunk, typesize=order["elementBytes"], clevel=5, filter=blosc2.Filter.SHUFFLE, codec=blosc2.Codec.ZSTD
        )

    return (compress, lambda packed, order: blosc2.decompress(packed))


ZIPNN_DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F8_E4M3": "float8_e4m3fn"}


def zipnn_peer():
    import zipnn

    made = {}

    def of(order):
        dtype = ZIPNN_DTYPES[order["dtype"]]
        if dtype not in made:
            made[dtype] = zipnn.ZipNN(bytearray_dtype=dtype, input_format="byte", threads=1)
        return made[dtype]

    return (
        lambda chunk, order: of(order).compress(bytearray(chunk)),
        lambda packed, order: of(order).decompress(packed),
    )


PEERS = {
    "zstd -1": ("zstandard", lambda: zstd_of(1)),
    "zstd -3": ("zstandard", lambda: zstd_of(3)),
    "blosc2 shuffle + zstd": ("blosc2", blosc2_peer),
    "ZipNN": ("zipnn", zipnn_peer),
    "LZ4": ("lz4", lz4_peer),
}


def perform(order, peer):
    compress, decompress = peer
    with open(order["path"], "rb") as file:
        data = file.read()
    size = order["chunkBytes"]
    chunks = [data[at : at + size] for at in range(0, len(data), size)]
    start = time.process_time()
    packed = [compress(chunk, order) for chunk in chunks]
    middle = time.process_time()
    unpacked = [decompress(each, order) for each in packed]
    end = time.process_time()
    if any(bytes(back) != chunk for back, chunk in zip(unpacked, chunks)):
        return {"error": "gave other bytes back"}
    return {"bytes": sum(len(each) for each in packed), "encodeSeconds": middle - start, "decodeSeconds": end - middle}


def main():
    peers, report = {}, {}
    for name, (package, make) in PEERS.items():
        try:
            peers[name] = make()
            report[name] = {"version": f"{package} {importlib.metadata.version(package)}"}
        except Exception as error:
            report[name] = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(report), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        try:
            answer = perform(order, peers[order["peer"]])
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


main()
