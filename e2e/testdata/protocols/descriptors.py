"""Prints the fields of the messages of NVIDIA's gRPC client: message, name, number, type, repeated."""

from google.protobuf import descriptor_pb2
from tritonclient.grpc import model_config_pb2, service_pb2


def fields(message, path):
    for field in message.field:
        kind = field.type_name or descriptor_pb2.FieldDescriptorProto.Type.Name(field.type)
        print(path, field.name, field.number, kind, field.label == field.LABEL_REPEATED)
    for inner in message.nested_type:
        fields(inner, path + "." + inner.name)


for module in (service_pb2, model_config_pb2):
    file = descriptor_pb2.FileDescriptorProto()
    module.DESCRIPTOR.CopyToProto(file)
    for message in file.message_type:
        fields(message, ".inference." + message.name)
